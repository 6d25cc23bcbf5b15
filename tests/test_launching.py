"""Ranks that a command starts: by torchrun, by a person's own torchrun, by Ray Train; killed, and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas.config import apply_overrides, check, dump_yaml, read_yaml, to_data
from nas.launching import Failure, Launch, _raise
from nas.recipes.search import RetrainRecipe
from nas.recipes.train_job import TrainJobRecipe
from nas.resolve import read_architecture
from nas.training import TrainingJob, _by_all, read_result, train_to_completion
from search_spaces.architecture import Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, LostRank, NonFiniteLoss, RunError
from search_spaces.recipe import FieldError
from trainers.checkpoint import newest_checkpoint, read_checkpoint
from trainers.precision import fastest
from trainers.ranks import Ranks

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests/recipes/train.yaml"
RECIPE = check(TrainJobRecipe, read_yaml(FILE), source="train.yaml")
SETS = [
    "train.epochs=null",
    "train.steps=30",
    "train.evaluate_every=0",
    "train.checkpoint_every=2",
    "train.amp=auto",
]
VARIABLES = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small backbone, as ``nas train`` takes it."""
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    genes = Genes({"blocks": (1, 1, 1, 1), "dilations": (1,) * 4})
    small = replace(named, settings=settings, genes=genes)
    path = tmp_path_factory.mktemp("network") / "winner.yaml"
    path.write_text(dump_yaml({"architecture": small.to_dict()}))
    return path


def command(network: Path, run: Path, *sets: str) -> list[str]:
    words = ["train", str(network), str(FILE), "--run", str(run)]
    return [*words, *(word for text in (*SETS, *sets) for word in ("--set", text))]


@pytest.fixture(scope="module")
def whole(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed training of two ranks, started by a person's torchrun."""
    run = tmp_path_factory.mktemp("whole") / "run"
    # Without the two dashes torchrun takes --run for one of its own options.
    starter = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "nas.cli"]
    done = subprocess.run(
        [*starter, *command(network, run), "--json"],
        env=VARIABLES,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = read_result(run)
    assert result is not None and json.loads(done.stdout) == result["metrics"], "one of them prints"
    assert result["train"]["amp"] == fastest(torch.device("cpu")), "the first decides for both"
    return run


def children(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(place.name))
    return found


def started_by(command: int) -> list[int]:
    """The agent and the ranks of a command."""
    (agent,) = children(command)
    return [agent, *children(agent)]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], still: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert still() and time.monotonic() < deadline
        time.sleep(0.1)


def started(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        env=VARIABLES,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def step(run: Path) -> int:
    content, _ = newest_checkpoint(run / "checkpoint.pt")
    return 0 if content is None else int(read_checkpoint(content)["step"])


def test_a_rank_is_killed_and_ray_train_finishes_what_was_begun(
    network: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = command(network, run, "ranks=2")
    first = started("-m", "nas.cli", *words)
    until((run / "checkpoint.previous.pt").exists, lambda: first.poll() is None)
    agent, *ranks = started_by(first.pid)
    (second,) = (one for one in ranks if b"\0RANK=1\0" in Path(f"/proc/{one}/environ").read_bytes())
    os.kill(second, signal.SIGKILL)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error")]
    assert line.startswith("error: rank 1 of 2 died (SIGKILL")
    assert line.endswith(f"Continue with: nas {' '.join(words)}")
    assert "Traceback" not in errors
    reached = step(run)
    assert 4 <= reached < 30 and not any(map(alive, (agent, *ranks)))

    home = {path.name for path in Path.home().iterdir()}
    architecture = read_architecture(str(network))
    job = TrainingJob(architecture=architecture, recipe=recipe(ranks=2, launcher="ray"), directory=run)
    heard = Heard()
    result = train_to_completion(job, heard)
    assert {path.name for path in Path.home().iterdir()} == home
    expected = read_result(whole)
    assert expected is not None and expected["environment"]["ranks"] == 2
    assert {**result, "seconds": 0} == {**expected, "seconds": 0} and result["warnings"] == []
    weights, others = (load_file(place / "detector.safetensors") for place in (run, whole))
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    names = {"checkpoint.pt", "detector.safetensors", "metrics.jsonl", "result.json", "training.yaml"}
    assert {path.name for path in run.iterdir()} == names == {path.name for path in whole.iterdir()}
    assert heard.phases == [("training 1,1,1,1, seed 5", 30)] and heard.done[-1] == 30
    assert heard.done == list(range(heard.done[0], 31)) and heard.done[0] > reached


SLEEPING = """
import sys
from nas.launching import Launch, on_ranks
from waiting import Told, wait

on_ranks(wait, sys.argv[1], Launch(count=2, launcher="torchrun", threads=1, gpu=False), Told(sys.argv[2]))
"""
WAITING = """
import os, time
from pathlib import Path
from nas.progress import Silent

def wait(folder, progress):
    Path(folder, os.environ["RANK"]).touch()
    progress.say("begun")
    time.sleep(300)

class Told(Silent):
    def __init__(self, path):
        self.path = Path(path)

    def say(self, text):
        self.path.write_text(text)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_rank_outlives_the_command(
    tmp_path: Path, hear_interrupts: Callable[[], None], how: signal.Signals
) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    (tmp_path / "ranks").mkdir()
    words = [sys.executable, "sleeping.py", str(tmp_path / "ranks"), str(tmp_path / "told")]
    variables = {**VARIABLES, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        words, env=variables, cwd=tmp_path, stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts
    )
    ready = [tmp_path / "told", tmp_path / "ranks/0", tmp_path / "ranks/1"]
    until(lambda: all(path.exists() for path in ready), lambda: process.poll() is None)
    mine = started_by(process.pid)
    assert len(mine) == 3 and (tmp_path / "told").read_text() == "begun"
    process.send_signal(how)
    process.wait(timeout=120)
    until(lambda: not any(map(alive, mine)), lambda: True)
    left = list(tmp_path.glob("vertebra-ranks-*"))
    assert len(left) == (how == signal.SIGKILL), "who is killed tidies nothing"


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.done: list[int] = []
        self.said: list[str] = []

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        self.phases.append((title, total))

    def advance(self, done: int, note: str = "") -> None:
        self.done.append(done)

    def say(self, text: str) -> None:
        self.said.append(text)


def recipe(**changes: Any) -> TrainJobRecipe:
    return replace(check(TrainJobRecipe, apply_overrides(to_data(RECIPE), SETS), source="r"), **changes)


def test_a_table_whose_ranks_cannot_share_a_batch_is_told_where_to_change_it() -> None:
    train = replace(RECIPE.train, batch_size=16, accumulate=4)
    words = r"retrain\.train\.batch_size / retrain\.train\.accumulate, 4.* --set retrain\.train\.accumulate=2"
    with pytest.raises(FieldError, match=words):
        RetrainRecipe(train=train, ranks=8)


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        ({"ranks": 3}, r"ranks: found 3; allowed are divisors of train\.batch_size, 4"),
        ({"ranks": 0}, r"ranks: found 0; allowed are divisors"),
        ({"address": "auto"}, r"address: found 'auto'; allowed is null with launcher torchrun"),
        (
            {"ranks": 2, "train": {**to_data(RECIPE.train), "compile": True}},
            r"ranks: found 2; allowed with train\.compile is 1",
        ),
    ],
)
def test_what_ranks_cannot_do_is_said_at_the_door(sets: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check(TrainJobRecipe, {**to_data(RECIPE), **sets}, source="r")


def test_the_final_table_takes_ranks_too() -> None:
    train = to_data(RECIPE.train)
    assert check(RetrainRecipe, {"train": train, "ranks": 2}, source="r").ranks == 2
    with pytest.raises(ConfigError, match="ranks: found 3"):
        check(RetrainRecipe, {"train": train, "ranks": 3}, source="r")


def test_torchruns_number_of_ranks_has_to_be_the_recipes() -> None:
    two = Ranks(rank=0, count=2)
    assert _by_all(recipe(), two).ranks == 2 and _by_all(recipe(ranks=2), two).ranks == 2
    assert _by_all(recipe(ranks=2), Ranks()).ranks == 2, "it starts them itself"
    with pytest.raises(ConfigError, match="ranks: found 4, but torchrun has started 2"):
        _by_all(recipe(ranks=4), two)
    with pytest.raises(ConfigError, match="which 3 ranks cannot share equally"):
        _by_all(recipe(), Ranks(rank=0, count=3))


def test_one_error_tells_what_happened_to_all() -> None:
    launch = Launch(count=3, launcher="torchrun", threads=1, gpu=False)

    def raised(**facts: Any) -> Exception:
        with pytest.raises(Exception) as caught:
            _raise(Failure(**facts), launch)
        return caught.value

    lost = ("LostRank", "another rank is gone")
    found = raised(errors={0: lost, 1: ("NonFiniteLoss", "step 3"), 2: lost}, first=0, died="exit code 2")
    assert type(found) is NonFiniteLoss and str(found) == "step 3"
    found = raised(errors={0: ("RunError", "a"), 2: ("RunError", "b")}, first=2, died="exit code 2")
    assert type(found) is RunError and str(found) == "b", "who was first"
    found = raised(errors={0: lost, 2: ("", "a peer's traceback")}, first=1, died="SIGKILL")
    assert type(found) is LostRank and str(found).startswith("rank 1 of 3 died (SIGKILL), and the others")
    found = raised(errors={0: lost, 2: ("", "Traceback: KeyError")}, first=2, died="exit code 2")
    assert type(found) is RuntimeError and "rank 2 of 3 failed\nTraceback: KeyError" in str(found)
    found = raised(errors={}, died="torchrun's agent ended with exit code 1", output="no rendezvous")
    assert type(found) is LostRank and "exit code 1" in str(found) and "no rendezvous" in str(found)
