"""A journal that was cut, damaged, locked or forged."""

import json
import os
import pickle
import threading
import time
from pathlib import Path
from random import Random

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend, JournalStorage

from nas.controllers.catalog import make_controller
from nas.controllers.optuna_sampler import SAMPLERS
from nas.distributions import distributions_of
from nas.journal import JOURNAL, SUMS, Guard, cut_before, repair
from nas.search import search
from nas.study import History, Study
from nas.testing import SeparableSpace, ToySpace, toy_score
from search_spaces.errors import RunError

SPACE = SeparableSpace(2, 3)


def run(directory: Path) -> History:
    directory.mkdir(exist_ok=True)
    with Study.open(directory) as study:
        phase = study.phase("p", SPACE, 0)
        search(phase=phase, controller=make_controller("greedy", space=SPACE, seed=0), score=toy_score(SPACE))
        return phase.history()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, History]:
    directory = tmp_path_factory.mktemp("whole")
    history = run(directory)
    return (directory / "study.log").read_bytes(), history


def test_a_cut_at_any_byte_keeps_the_whole_records_and_the_piece(
    journal: tuple[bytes, History], tmp_path: Path
) -> None:
    content, _ = journal
    path = tmp_path / "study.log"
    ends = {place + step for place, byte in enumerate(content) if byte == ord("\n") for step in (0, 1, 2)}
    # Every byte of the last two records, elsewhere a sample: each cut writes and syncs two files.
    for cut in sorted({*range(0, len(content), 29), *ends, *range(len(content) - 800, len(content) + 1)}):
        if cut > len(content):
            continue
        path.write_bytes(content[:cut])
        beside = repair(path)
        kept = path.read_bytes()
        assert content.startswith(kept)
        assert not kept or kept.endswith(b"\n")
        if beside is None:
            assert len(kept) == cut
        else:
            assert kept + beside.read_bytes() == content[:cut]
            assert b"\n" not in beside.read_bytes()
            beside.unlink()
        assert repair(path) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0))
def test_a_search_resumed_from_any_cut_equals_the_whole(
    journal: tuple[bytes, History], tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content, history = journal
    directory = tmp_path_factory.mktemp("cut")
    (directory / "study.log").write_bytes(content[: round(share * len(content))])
    assert run(directory) == history


def test_each_record_end_is_a_place_to_continue_from(journal: tuple[bytes, History], tmp_path: Path) -> None:
    content, history = journal
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for number, end in enumerate(ends):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "study.log").write_bytes(content[:end])
        assert run(directory) == history


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def test_a_flipped_byte_is_refused_with_its_record_and_the_run_goes_on_before_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    whole = tmp_path_factory.mktemp("whole")
    history = run(whole)
    content, sums = (whole / JOURNAL).read_bytes(), (whole / SUMS).read_bytes()
    assert sums.count(b"\n") == content.count(b"\n") > 20
    rng = Random(3)
    for _ in range(60):
        place, bit = rng.randrange(len(content) - 1), rng.randrange(8)
        number = content.count(b"\n", 0, place) + 1
        directory = tmp_path_factory.mktemp("flipped")
        (directory / JOURNAL).write_bytes(flipped(content, place, bit))
        (directory / SUMS).write_bytes(sums)
        for read_only in (True, False):
            with pytest.raises(RunError, match=rf"record {number}: its bytes are not .*--from {number}$"):
                Study.open(directory, read_only=read_only)
        cut = cut_before(directory / JOURNAL, number)
        assert (directory / JOURNAL).read_bytes() + cut.read_bytes() == flipped(content, place, bit)
        assert run(directory) == history
        assert run(directory) == history, "and its checksums fit again"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0), of_sums=st.floats(0.0, 1.0))
def test_checksums_that_were_cut_too_refuse_nothing(
    tmp_path_factory: pytest.TempPathFactory, share: float, of_sums: float
) -> None:
    """A power cut may take the end of both files, each to another point."""
    whole = tmp_path_factory.mktemp("whole")
    history = run(whole)
    directory = tmp_path_factory.mktemp("cut")
    for name, kept in ((JOURNAL, share), (SUMS, of_sums)):
        content = (whole / name).read_bytes()
        (directory / name).write_bytes(content[: round(kept * len(content))])
    assert run(directory) == history
    assert run(directory) == history


def test_records_of_other_programs_are_believed(tmp_path: Path) -> None:
    history = run(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    optuna.load_study(study_name="p", storage=storage).set_user_attr("note", "from a dashboard")
    assert run(tmp_path) == history


def test_a_record_that_is_not_there_cannot_be_cut(tmp_path: Path) -> None:
    run(tmp_path)
    last = (tmp_path / JOURNAL).read_bytes().count(b"\n")
    for record in (0, last + 1):
        with pytest.raises(RunError, match=rf"--from {record}: .* has records 1 to {last}; name one"):
            cut_before(tmp_path / JOURNAL, record)


def test_a_last_line_of_zeros_is_torn_too(journal: tuple[bytes, History], tmp_path: Path) -> None:
    """After a power cut a block may be there as zeros, with or without the line end after it."""
    content, history = journal
    for name, tail in (("a", b"\0" * 300), ("b", b"\0" * 300 + b"}\n")):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "study.log").write_bytes(content + tail)
        assert run(directory) == history
        assert (directory / "study.log.torn-0").read_bytes() == tail


def test_pieces_are_never_overwritten(journal: tuple[bytes, History], tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    for number in range(3):
        path.write_bytes(journal[0] + b"piece %d" % number)
        assert repair(path) == tmp_path / f"study.log.torn-{number}"
    assert (tmp_path / "study.log.torn-1").read_bytes() == b"piece 1"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"{broken", "line 2: not JSON"),
        (b"[1, 2]", "line 2: not a record of an Optuna journal"),
        (b'{"op_code": 99}', "line 2: not a record of an Optuna journal"),
        (b'{"op_code": true, "op": 1' + b"[" * 100_000, "line 2: not JSON"),
        (b'{"op_code": 5, "trial_id": 0}', "cannot replay"),
        (b'{"op_code": 4, "study_id": "x", "worker_id": []}', ""),
    ],
)
def test_damage_before_the_last_line_names_the_line(
    journal: tuple[bytes, History], tmp_path: Path, damage: bytes, message: str
) -> None:
    lines = journal[0].split(b"\n")
    lines.insert(1, damage)
    (tmp_path / "study.log").write_bytes(b"\n".join(lines))
    if message:
        with pytest.raises(RunError, match=message):
            Study.open(tmp_path)
    else:
        Study.open(tmp_path).close()  # a record of a study that is not there means nothing


@pytest.mark.parametrize("target", ["study.log", "gone/study.log"])
def test_a_lock_of_a_dead_process_is_removed_at_once(
    journal: tuple[bytes, History], tmp_path: Path, target: str
) -> None:
    """Also one whose link is broken, for which Optuna would wait for ever."""
    (tmp_path / "study.log").write_bytes(journal[0])
    lock = tmp_path / "study.log.lock"
    lock.symlink_to(target)
    (tmp_path / "study.log.lock4711.rename").symlink_to(target)
    began = time.monotonic()
    assert run(tmp_path) == journal[1]
    assert time.monotonic() - began < 3
    assert not lock.is_symlink()
    assert not list(tmp_path.glob("*.rename"))


def test_a_lock_that_lives_is_left_alone(journal: tuple[bytes, History], tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_bytes(journal[0])
    lock = tmp_path / "study.log.lock"
    lock.symlink_to(path)

    def write_and_take_again() -> None:
        time.sleep(0.05)
        lock.unlink()
        time.sleep(0.002)
        lock.symlink_to(path)

    writer = threading.Thread(target=write_and_take_again)
    writer.start()
    repair(path)
    writer.join()
    assert lock.is_symlink()


def test_a_child_that_outlives_its_parent_does_not_keep_the_run_closed(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        guard = Guard(tmp_path)
        if os.fork() == 0:
            os.read(go[0], 1)
            os._exit(0)
        os.write(ready[1], b"x")
        time.sleep(60)
        guard.release()
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(RunError, match=f"pid {parent}"):
            Guard(tmp_path)
        os.kill(parent, 9)
        os.waitpid(parent, 0)
        Guard(tmp_path).release()
    finally:
        os.write(go[1], b"x")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def forge(directory: Path, payload: str) -> None:
    """Put the payload wherever a sampler might look: attributes of studies and trials."""
    path = directory / "study.log"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    keys = [f"{prefix}:optimizer:0" for prefix in ("cma", "sepcma", "cmawm")]
    for record in records:
        if record["op_code"] == 4:
            record["system_attrs"] = dict.fromkeys(keys, payload) | {"NSGAIISampler:generation": 3}
            record["user_attrs"] |= dict.fromkeys(keys, payload)
    worker = records[0]["worker_id"]
    for key in [*keys, "NSGAIISampler:parent:1"]:
        for code, attribute in ((2, "user_attr"), (3, "system_attr")):
            records.append({"op_code": code, "worker_id": worker, "study_id": 0, attribute: {key: payload}})
    path.with_name(SUMS).unlink()  # whoever forges the one file takes the other away
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"gp", "brute_force"}))
def test_a_hostile_journal_runs_no_code(sampler: str, tmp_path: Path) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    space, mark = ToySpace(), tmp_path / "executed"
    payload = pickle.dumps(Payload(mark)).hex()

    def continue_search(budget: int) -> History:
        with Study.open(tmp_path) as study:
            phase = study.phase("p", space, 0)
            controller = make_controller(
                "optuna", space=space, seed=0, budget=budget, options={"sampler": sampler}
            )
            search(phase=phase, controller=controller, score=toy_score(space))
            return phase.history()

    first = continue_search(8)
    forge(tmp_path, payload)
    history = continue_search(16)
    assert [record.digest for record in history[:8]] == [record.digest for record in first]
    assert len(history) == 16
    assert not mark.exists(), "the journal ran code"


def test_the_payload_would_run_if_a_sampler_saw_it(tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    pytest.importorskip("cmaes")
    space, mark = ToySpace(), tmp_path / "executed"
    with Study.open(tmp_path) as study:
        phase = study.phase("p", space, 0)
        controller = make_controller("random", space=space, seed=0, budget=8)
        search(phase=phase, controller=controller, score=toy_score(space))
    forge(tmp_path, pickle.dumps(Payload(mark)).hex())
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    )
    naive = optuna.load_study(
        study_name="p", storage=storage, sampler=optuna.samplers.CmaEsSampler(n_startup_trials=2)
    )
    naive.ask(distributions_of(space.parameters))
    assert mark.exists()
