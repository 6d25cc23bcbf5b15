"""One seeded sample of every kind of fault; ``benchmarks/fault_table.py`` has hundreds."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faulty
import pytest
import torch
from driver import KINDS, Account, Case, faulted, obey_modes
from faulty import Plan
from objective import lines_of, note

from nas.journal import JOURNAL, SUMS
from nas.study import Study
from search_spaces.errors import RunError, out_of_memory
from search_spaces.files import beside, sweep, write_atomic

ROOT = Path(__file__).parents[2]
BUDGET = 12
SAMPLE = [
    ("driver", "processes", 1),
    ("worker", "processes", 2),
    ("any trouble", "processes", 4),
    ("out of memory", "serial", 2),
    ("full disk", "serial", 2),
    ("read-only", "serial", 1),
    ("truncation", "serial", 1),
    ("flipped bit", "serial", 1),
]


def assert_clean(account: Account) -> None:
    assert account.clean, account


@pytest.mark.parametrize(("kind", "engine", "times"), SAMPLE)
def test_nothing_is_lost_repeated_or_stuck(kind: str, engine: str, times: int, tmp_path: Path) -> None:
    assert_clean(faulted(kind, engine, 5, tmp_path / "search", times=times, budget=BUDGET))


def test_ray_that_dies_beside_its_driver_is_a_sentence(tmp_path: Path) -> None:
    """Half a minute later Ray would end the driver without a word."""
    account = faulted("own raylet", "ray", 5, tmp_path / "search", budget=BUDGET, last="serial")
    assert_clean(account)
    assert len(account.told) == 1


def test_every_kind_is_sampled() -> None:
    single = {"out of memory", "hang", "kills its worker"}  # in any trouble
    elsewhere = {"raylet", "own raylet"}  # of a node: engines/test_ray_tune.py
    assert {kind for kind, *_ in SAMPLE} | single | elsewhere == KINDS.keys()


def test_the_account_finds_what_is_wrong(tmp_path: Path) -> None:
    """Or a clean one would say nothing."""
    (tmp_path / "run").mkdir()
    plan = Plan(directory=str(tmp_path / "run"), log=str(tmp_path / "calls.log"), budget=BUDGET, seconds=0.0)
    faulty.run(plan)

    def case() -> Case:
        one = Case("driver", plan, None, 0)  # type: ignore[arg-type]
        one.count()
        return one

    assert case().settle().equal and not case().account.repeated
    again = case()
    done = next(words for words in lines_of(tmp_path / "calls.log") if words[0] == "end")
    note(tmp_path / "calls.log", " ".join(["begin", *done[1:]]))
    again.count()
    assert again.account.repeated == 1
    cut = case()
    content = (tmp_path / "run" / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / SUMS).unlink()
    (tmp_path / "run" / JOURNAL).write_bytes(b"".join(content[:-1]))
    account = cut.settle()
    assert account.lost == account.stuck == 1 and not account.equal and not account.clean


def small_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def nas(prepare: Callable[[], None], *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=prepare,
        check=False,
    )


def test_a_checkpoint_that_has_no_room_ends_the_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = nas(partial(small_files, 40_000), "search", ROOT / "tests/recipes/tiny.yaml", "--run", run)
    assert found.returncode == 2 and "Traceback" not in found.stderr + found.stdout
    assert f"error: {run}/stages/checkpoint.pt: cannot be written: File too large" in found.stderr
    assert not list(run.rglob("*.tmp")), "what has no room takes none"


def test_a_closed_directory_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o555)
    found = nas(obey_modes, "search", ROOT / "tests/recipes/tiny.yaml", "--run", run)
    assert found.returncode == 2 and found.stdout == ""
    assert f"error: {run}/recipe.yaml: cannot be written: Permission denied" in found.stderr
    assert not list(run.iterdir())


def test_a_file_that_cannot_be_replaced_is_left(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "winner.yaml"
    write_atomic(path, b"old")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(RunError, match=r"winner\.yaml: cannot be written: File too large\. What was"):
            write_atomic(path, b"new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_had_half_written_is_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "stages").mkdir()
    (tmp_path / f"stages/.bundle-x.{dead.pid}.tmp/targets").mkdir(parents=True)
    half = tmp_path / f"stages/.checkpoint.pt.{dead.pid}.tmp"
    half.write_bytes(b"half")
    own = beside(tmp_path / "winner.yaml")
    own.write_bytes(b"of a dead process that had this one's number")
    lives = tmp_path / f".report.html.{os.getppid()}.tmp"
    kept = [lives, tmp_path / ".notes.tmp", tmp_path / f"notes.{dead.pid}.tmp"]
    for path in kept:
        path.write_bytes(b"")
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not list((tmp_path / "stages").iterdir())


def test_a_torn_checksum_is_not_glued_to_the_next(tmp_path: Path) -> None:
    """A full disk takes half a line; with the next one it would read as the checksum of another place."""
    plan = Plan(directory=str(tmp_path), log=str(tmp_path / "calls.log"), budget=BUDGET, seconds=0.0)
    faulty.run(plan)
    sums = tmp_path / SUMS
    whole = sums.read_bytes()
    sums.write_bytes(whole + b"1f")
    Study.open(tmp_path).close()
    assert sums.read_bytes() == whole


def test_memory_that_is_not_there_is_known_whoever_says_so() -> None:
    with pytest.raises(RuntimeError) as asked:
        torch.empty(2**50, dtype=torch.uint8)
    assert "you tried to allocate" in str(out_of_memory(asked.value))
    assert out_of_memory(MemoryError()) == "out of memory (MemoryError)"
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    assert out_of_memory(gpu) == "out of memory (CUDA out of memory. Tried to allocate 2 GiB)"
    assert out_of_memory(OSError(12, "Cannot allocate memory")) is not None
    assert out_of_memory(RuntimeError("size mismatch")) is None
