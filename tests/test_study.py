"""The study: what is written when, what is read back, and what Optuna makes of the file."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial

from nas.controllers.base import digests
from nas.controllers.catalog import make_controller
from nas.journal import SUMS
from nas.search import search
from nas.study import Phase, Score, Study
from nas.testing import SeparableSpace, ToySpace
from nas.trials import Trials
from search_spaces.architecture import Candidate, Prefix
from search_spaces.errors import CandidateFailed, InvalidArchitecture, RunError


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "study.log").read_text().splitlines()]


def some(space: ToySpace | SeparableSpace, count: int) -> list[Candidate]:
    return list(space.enumerate())[:count]


@pytest.fixture
def space() -> ToySpace:
    return ToySpace()


@pytest.fixture
def phase(tmp_path: Path, space: ToySpace) -> Phase:
    return Study.open(tmp_path).phase("stages", space, seed=7)


def test_a_candidate_is_one_record_and_its_result_one_more(phase: Phase, tmp_path: Path) -> None:
    before = len(lines(tmp_path))
    record = phase.begin(phase.space.baseline, {"macs": 12})
    written = lines(tmp_path)[before:]
    assert [line["op_code"] for line in written] == [4]
    assert written[0]["state"] == 0
    phase.finish(record.number, Score(value=0.5))
    assert [line["op_code"] for line in lines(tmp_path)[before + 1 :]] == [6]


def test_everything_comes_back(phase: Phase, tmp_path: Path) -> None:
    first, second, third, fourth = (phase.begin(c, {"macs": 1}) for c in some(ToySpace(), 4))
    phase.finish(first.number, Score(value=0.1, attributes={"AP": 3.5, "per_class": {"cell": 1}}))
    phase.fail(second.number, "out of memory at 800x800")
    phase.prune(third.number, "12 GMACs, allowed are 10")
    assert fourth.state == "running"
    again = Study.open(tmp_path).phase("stages", ToySpace(), seed=7).history()
    assert again == phase.history()
    assert [record.state for record in again] == ["complete", "failed", "pruned", "running"]
    assert [record.number for record in again] == [0, 1, 2, 3]
    assert again[0].value == 0.1
    assert again[0].attributes == {"macs": 1, "AP": 3.5, "per_class": {"cell": 1}}
    assert again[1].reason == "out of memory at 800x800"
    assert again[2].reason == "12 GMACs, allowed are 10"
    assert all(record.value is None for record in again[1:])
    assert all(record.candidate.digest == record.digest for record in again)
    assert all(record.phase == "stages" for record in again)


def test_a_prefix_carries_its_decided_parameters_only_and_is_marked(phase: Phase, tmp_path: Path) -> None:
    prefix = phase.space.prefix([3])
    phase.begin(prefix)
    assert phase.history()[0].candidate == prefix
    trial = load(tmp_path, "stages").trials[0]
    assert trial.params == {"kernel": 3}
    assert trial.user_attrs["prefix"] == {"space": "toy", "genes": {"kernel": 3}}
    assert "architecture" not in trial.user_attrs


def load(directory: Path, name: str) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(directory / "study.log"))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def test_optuna_opens_the_journal_unchanged(phase: Phase, tmp_path: Path) -> None:
    record = phase.begin(phase.space.baseline)
    phase.finish(record.number, Score(value=0.25))
    study = load(tmp_path, "stages")
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == 0.25
    assert phase.space.decode(study.best_params) == phase.space.baseline
    assert study.user_attrs["space"] == "toy"
    assert study.user_attrs["seed"] == 7
    assert set(study.user_attrs["versions"][0]) == {"python", "vertebra", "optuna", "numpy"}


def test_phases_share_one_file(tmp_path: Path, space: ToySpace) -> None:
    with Study.open(tmp_path) as study:
        stages, dilations = study.phase("stages", space, 1), study.phase("dilations", SeparableSpace(), 2)
        stages.begin(space.baseline)
        dilations.begin(SeparableSpace().prefix([1]))
        stages.begin(some(space, 1)[0])
        assert study.phase_names() == ("stages", "dilations")
        assert [record.number for record in stages.history()] == [0, 1]
        assert [record.number for record in dilations.history()] == [0]
        assert study.records("stages") == stages.history()
        with pytest.raises(RunError, match="no phase 'stage'"):
            study.records("stage")


def test_reading_neither_locks_nor_mends(phase: Phase, tmp_path: Path) -> None:
    phase.begin(phase.space.baseline)
    with (tmp_path / "study.log").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    before = (tmp_path / "study.log").read_bytes()
    with Study.open(tmp_path, read_only=True) as study:
        assert len(study.records("stages")) == 1
    assert (tmp_path / "study.log").read_bytes() == before
    assert not list(tmp_path.glob("*torn*"))


def test_reading_needs_something_to_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no search was started"):
        Study.open(tmp_path, read_only=True)
    with pytest.raises(RunError, match="no such run directory"):
        Study.open(tmp_path / "none")


def test_loading_writes_nothing(phase: Phase, tmp_path: Path, space: ToySpace) -> None:
    before = (tmp_path / "study.log").read_bytes()
    Study.open(tmp_path).phase("stages", space, 7)
    assert (tmp_path / "study.log").read_bytes() == before


def test_other_versions_are_written_down_beside_the_first(
    phase: Phase, tmp_path: Path, space: ToySpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nas.study

    monkeypatch.setattr(nas.study, "versions", lambda: {"python": "3.99"})
    Study.open(tmp_path).phase("stages", space, 7)
    found = load(tmp_path, "stages").user_attrs["versions"]
    assert len(found) == 2
    assert found[1] == {"python": "3.99"}


@pytest.mark.parametrize(("seed", "other"), [(8, ToySpace()), (7, SeparableSpace())])
def test_another_seed_or_space_is_refused(
    phase: Phase, tmp_path: Path, seed: int, other: ToySpace | SeparableSpace
) -> None:
    with pytest.raises(RunError, match="phase stages was begun with"):
        Study.open(tmp_path).phase("stages", other, seed)


def test_a_candidate_of_another_space_is_refused(phase: Phase) -> None:
    with pytest.raises(InvalidArchitecture):
        phase.begin(SeparableSpace().baseline)
    with pytest.raises(InvalidArchitecture):
        phase.begin(Prefix(space="other", genes=phase.space.prefix([3]).genes))
    assert phase.history() == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_is_a_finite_number(value: float) -> None:
    with pytest.raises(CandidateFailed, match="finite"):
        Score(value=value)


def test_attributes_are_plain_data(phase: Phase) -> None:
    with pytest.raises(TypeError, match="plain data"):
        Score(value=1.0, attributes={"map": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="plain data"):
        phase.begin(phase.space.baseline, {"AP": float("nan")})
    with pytest.raises(TypeError, match="other names"):
        phase.begin(phase.space.baseline, {"digest": "x"})


def test_history_is_read_once(phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas.study

    for candidate in some(ToySpace(), 20):
        phase.finish(phase.begin(candidate).number, Score(value=1.0))
    read = []
    original = nas.study.record_of
    monkeypatch.setattr(
        nas.study, "record_of", lambda trial, *rest: read.append(trial) or original(trial, *rest)
    )
    assert len(phase.history()) == 20
    assert read == []
    phase.begin(ToySpace().baseline)
    phase.history()
    assert {trial.number for trial in read} == {20}


def test_a_database_instead_of_the_journal(tmp_path: Path, space: ToySpace) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        with Study.open(directory, url) as study:
            phase = study.phase("stages", space, 1)
            done = phase.begin(space.baseline)
            phase.finish(done.number, Score(value=0.1 + 0.2, attributes={"AP": 1}))
            phase.begin(some(space, 1)[0])
            assert study.phase_names() == ("stages",)
    with Study.open(first, url) as study:
        history = study.phase("stages", space, 1).history()
    assert [(record.state, record.value) for record in history] == [
        ("complete", 0.1 + 0.2),
        ("running", None),
    ]
    assert optuna.load_study(study_name="first/stages", storage=url).best_value == 0.1 + 0.2


def test_trials_of_others_are_refused(phase: Phase, tmp_path: Path, space: ToySpace) -> None:
    load(tmp_path, "stages").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(RunError, match="trial 0: not written by this toolkit"):
        phase.begin(space.baseline)
    with pytest.raises(RunError, match="trial 0: not written by this toolkit"):
        Study.open(tmp_path, read_only=True).phase("stages", space, 7)


def test_a_search_never_looks_through_all_of_its_trials(tmp_path: Path) -> None:
    """What is looked at for one more trial must not grow with their number."""
    wide, looked = SeparableSpace(8, 3), []
    whole = JournalStorage.get_all_trials

    def counted(self: JournalStorage, *arguments: Any, **rest: Any) -> list[FrozenTrial]:
        looked.append(len(found := whole(self, *arguments, **rest)))
        return found

    with pytest.MonkeyPatch.context() as patch, Study.open(tmp_path) as study:
        phase = study.phase("e", wide, 0)
        patch.setattr(JournalStorage, "get_all_trials", counted)
        random = make_controller("random", space=wide, seed=0, budget=300, options={})
        search(phase=phase, controller=random, score=lambda candidate: Score(value=0.0), batch=4)
        history = phase.history()
    assert looked == [] and len(history) == 300
    # The index of what was tried says the same as a look through the trials, at every moment.
    plain = tuple(history)
    for number in (0, 1, 150, 300):
        earlier = Trials(history[:number], history.first)
        seen, listed = digests(earlier), digests(plain[:number])
        assert all((one.digest in seen) == (one.digest in listed) for one in history)


def test_a_history_is_a_view_and_its_slices_are_not(phase: Phase, space: ToySpace) -> None:
    history = phase.history()
    assert history == () and len(history) == 0
    phase.begin(space.baseline)
    before = history[:]
    assert len(history) == 1 and history[-1].state == "running" and history is phase.history()
    phase.finish(0, Score(value=1.0))
    assert [record.state for record in history] == ["complete"] and before[0].state == "running"
    assert history == phase.history() and history != before and list(reversed(history)) == list(history)


def test_a_changed_trial_is_noticed(phase: Phase, tmp_path: Path, space: ToySpace) -> None:
    phase.begin(space.baseline)
    path = tmp_path / "study.log"
    path.with_name(SUMS).unlink()
    path.write_text(
        path.read_text().replace('"kernel":3}', '"kernel":5}').replace('"kernel":3,', '"kernel":5,')
    )
    with pytest.raises(RunError, match="the journal was changed"):
        Study.open(tmp_path).phase("stages", space, 7)


@pytest.mark.parametrize("values", ["[NaN]", "[1.0,2.0]", '["high"]', "null", "[Infinity]"])
def test_a_forged_score_is_noticed(phase: Phase, tmp_path: Path, space: ToySpace, values: str) -> None:
    phase.finish(phase.begin(space.baseline).number, Score(value=0.125))
    path = tmp_path / "study.log"
    path.with_name(SUMS).unlink()
    path.write_text(path.read_text().replace("[0.125]", values))
    with pytest.raises(RunError, match="trial 0: found scores"):
        Study.open(tmp_path).phase("stages", space, 7)
