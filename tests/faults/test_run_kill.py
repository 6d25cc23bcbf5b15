"""``kill -9`` anywhere in ``nas search``, supernet training and retraining included: ``nas resume`` gives the
run that was never killed. Ctrl-C says how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas.choosing import mean_ranks, naswot_of
from nas.run import Run
from nas.study import Study
from trainers.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/recipes/tiny.yaml"
SPINENET = ROOT / "tests/recipes/tiny_spinenet.yaml"
WATCHED = Path(__file__).with_name("watched_nas.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

Trials = list[tuple[str, int, str, float | None, str]]


def nas(log: Path, kill: str, *arguments: str | Path) -> None:
    """Run to the kill, or to the end with ``never``."""
    command = [sys.executable, str(WATCHED), str(log), kill, *map(str, arguments)]
    process = subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == (0 if kill == "never" else -signal.SIGKILL), process.stderr


def events(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def trials(directory: Path) -> Trials:
    with Study.open(directory, read_only=True) as study:
        return [
            (phase, record.number, record.digest, record.value, record.state)
            for phase in study.phase_names()
            for record in study.records(phase)
        ]


def tables(directory: Path) -> dict[str, Any]:
    """Results of the final table by training, without the clock."""
    return {
        "/".join(path.parts[-3:-1]): {
            name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"
        }
        for path in directory.glob("retrain/*/*/result.json")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    directory = tmp_path_factory.mktemp("whole")
    nas(directory / "calls.log", "never", "search", TINY, "--run", directory / "run")
    return directory


def assert_nothing_done_ran_twice(log: Path) -> None:
    done: set[tuple[str, str]] = set()
    trained: set[str] = set()
    for kind, *rest in events(log):
        if kind == "done":
            phase, _, digest = rest
            assert (phase, digest) not in done, f"{rest} was reported twice"
            done.add((phase, digest))
        elif kind == "score":
            assert (rest[0], rest[1]) not in done, f"{rest} was reported done and scored again"
        elif kind == "trained":
            trained.add(rest[0])
        elif kind in ("train", "step"):
            assert rest[0] not in trained, f"{rest} was finished and began again"


def steps(log: Path, name: str) -> list[int]:
    return [int(event[2]) for event in events(log) if event[:2] == ["step", name]]


def test_a_driver_killed_beside_its_workers_goes_on_to_the_same_trials(whole: Path, tmp_path: Path) -> None:
    """Worker processes score; whatever they had under way is scored again, and nothing else is."""
    run, log = tmp_path / "run", tmp_path / "calls.log"
    settings = ("--set", "engine=processes", "--set", "workers=2", "--set", "retrain=null")
    nas(log, "3:done stages", "search", TINY, "--run", run, *settings)
    nas(log, "4:done dilations", "resume", run)
    nas(log, "1:done dilations", "resume", run)
    nas(log, "never", "resume", run)
    assert trials(run) == trials(whole / "run")
    assert_nothing_done_ran_twice(log)


def test_killed_in_training_scoring_and_retraining(whole: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "calls.log"

    nas(log, "8:step stages", "search", TINY, "--run", run)
    # As a kill inside of a write leaves it.
    half = [run / f"{name}.{2**22 + 1}.tmp" for name in ("stages/.spent.json", "ledger/.1-2.json")]
    for path in half:
        path.write_bytes(b"half")
    assert int(load_checkpoint(run / "stages/checkpoint.pt")["step"]) == 6
    assert trials(run) == [], "killed before anything was scored"

    nas(log, "7:detect stages", "resume", run)
    assert steps(log, "stages") == [*range(8), *range(6, 12)], "two steps lost, those of the checkpoint kept"
    assert [trial[4] for trial in trials(run)] == ["complete"] * 3 + ["running"], (
        "inside the fourth's scoring"
    )

    # The same command as at first goes on too; inside the other supernet, before its first checkpoint.
    nas(log, "2:step dilations", "search", TINY, "--run", run)
    assert not (run / "dilations/checkpoint.pt").exists()
    scored = [event[2] for event in events(log) if event[:2] == ["score", "stages"]]
    assert len(scored) == 6 + 1 and scored[3] == scored[4], "only the interrupted trial began twice"

    nas(log, "20:detect dilations", "resume", run)
    assert trials(run)[-1][4] == "running"

    first = next(path.parent for path in (whole / "run").glob("retrain/*/*/result.json"))
    name = "/".join(first.parts[-2:])
    nas(log, f"7:step {name}", "resume", run)
    assert (run / "retrain" / name / "checkpoint.pt").exists()

    nas(log, "never", "resume", run)
    assert steps(log, name) == [*range(7), *range(4, 12)]
    assert trials(run) == trials(whole / "run")
    assert len(trials(run)) == 6 + 24 and {trial[4] for trial in trials(run)} == {"complete"}
    assert len({trial[3] for trial in trials(run)}) > 20, "scores that differ, else equality says little"
    assert_nothing_done_ran_twice(log)

    assert (run / "winner.yaml").read_bytes() == (whole / "run/winner.yaml").read_bytes()
    assert tables(run) == tables(whole / "run") and len(tables(run)) == 2
    for training in tables(run):
        weights, expected = (
            load_file(folder / "retrain" / training / "detector.safetensors")
            for folder in (run, whole / "run")
        )
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())
    for phase in ("stages", "dilations"):
        states = [load_checkpoint(folder / phase / "checkpoint.pt") for folder in (run, whole / "run")]
        assert all(torch.equal(value, states[1]["model"][key]) for key, value in states[0]["model"].items())
        assert torch.equal(states[0]["losses"], states[1]["losses"])
    assert not list(run.rglob("*.tmp")), "no half-written file is left"


def interrupted(
    ready: Callable[[], bool], presses: int, hear: Callable[[], None], *words: str
) -> tuple[int, str, str]:
    """``nas`` in a process that hears so many Ctrl-Cs from a moment on: exit code, output, errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *words],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear,
    )
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in errors + output
    return process.returncode, output, errors


def in_training(phase: Path) -> bool:
    """Whether a candidate of a search is being trained."""
    return phase.is_dir() and any(phase.iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole search with short trainings."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    nas(run.parent / "calls.log", "never", "search", SPINENET, "--run", run, "--set", "retrain=null")
    return run


def test_a_choice_by_mean_rank_is_the_same_after_a_kill(tmp_path: Path) -> None:
    words = [TINY, "--set", "stages.choose_by=mean_rank", "--set", "dilations=null", "--set", "retrain=null"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nas(tmp_path / "whole.log", "never", "search", *words, "--run", whole)
    nas(tmp_path / "killed.log", "4:done stages", "search", *words, "--run", killed)
    nas(tmp_path / "killed.log", "4:detect stages", "resume", killed)
    nas(tmp_path / "killed.log", "never", "resume", killed)
    assert_nothing_done_ran_twice(tmp_path / "killed.log")
    found = []
    for directory in (whole, killed):
        with Study.open(directory, read_only=True) as study:
            history = study.records("stages")
        ranks = mean_ranks(history)
        assert len(ranks) == 6
        found.append([(one.digest, one.value, naswot_of(one), ranks[one.number]) for one in history])
    assert found[0] == found[1]
    winners = [Run.open(directory).read_winner() for directory in (whole, killed)]
    assert winners[0] == winners[1] is not None


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_ctrl_c_once_finishes_what_runs_and_twice_does_not(
    undisturbed: Path, tmp_path: Path, hear_interrupts: Callable[[], None], engine: str
) -> None:
    words = ("--set", f"engine={engine}", "--set", "workers=2", "--set", "retrain=null")
    once = tmp_path / "once"
    code, output, errors = interrupted(
        lambda: in_training(once / "search"),
        1,
        hear_interrupts,
        *("search", str(SPINENET), "--run", str(once), *words),
    )
    assert code == 130 and f"nas resume {once}" in errors
    assert "Ctrl-C again stops now" in output
    with Study.open(once, read_only=True) as study:
        records = study.records("search")
    finished = [record for record in records if record.finished or record.kept is not None]
    assert finished, "what was under way"
    assert not list((once / "search").iterdir()), "no training was cut short"
    twice = tmp_path / "twice"
    slow = ("--set", "search.proxy.train={steps: 100000, batch_size: 4, lr: 0.005, checkpoint_every: 3}")
    code, output, errors = interrupted(
        lambda: in_training(twice / "search"),
        2,
        hear_interrupts,
        *("search", str(SPINENET), "--run", str(twice), *words, *slow),
    )
    assert code == 130 and f"nas resume {twice}" in errors, "and within the minute that it had"
    nas(tmp_path / "calls.log", "never", "resume", once)
    assert trials(once) == trials(undisturbed)


def test_a_driver_killed_beside_ray_goes_on_to_the_same_trials(whole: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "calls.log"
    settings = ("--set", "engine=ray", "--set", "workers=2", "--set", "retrain=null")
    # Once, for a cluster takes half a minute to start; beside other workers it is killed in the first phase too.
    nas(log, "4:done dilations", "search", TINY, "--run", run, *settings)
    nas(log, "never", "resume", run)
    assert trials(run) == trials(whole / "run")
    assert_nothing_done_ran_twice(log)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, hear_interrupts: Callable[[], None]) -> None:
    run = tmp_path / "run"
    code, _, errors = interrupted(
        lambda: (run / "stages/checkpoint.pt").exists(),
        1,
        hear_interrupts,
        *("search", str(TINY), "--run", str(run), "--set", "stages.supernet.train.steps=4000"),
    )
    assert code == 130 and f"nas resume {run}" in errors
    assert int(load_checkpoint(run / "stages/checkpoint.pt")["step"]) >= 3
