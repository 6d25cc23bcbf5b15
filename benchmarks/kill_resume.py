"""``kill -9`` at random moments of a serial search, supernet training included, and what ``nas resume`` makes of it.

    python benchmarks/kill_resume.py [--kills 10] [--seed 0] [--recipe FILE] [--set key=value ...]

One search runs without a stop; the moments are drawn uniformly over its time, from its first optimiser step
to its end. A second search of the same recipe is killed at those moments and resumed each time. The result,
benchmarks/results/kill_resume.json, says whether trials, winner and supernet weights are equal and whether
anything that was reported done ran again. Exit code 1 if not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.config import apply_overrides, check, read_yaml
from nas.recipes.crnas import CRNASRecipe
from nas.run import environment
from nas.study import Study
from trainers.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/kill_resume.json"
WATCHED = ROOT / "tests/faults/watched_nas.py"
RECIPE = "tests/recipes/tiny.yaml"
SETTINGS = (
    "name=kill_resume",
    "space.branches=[[1,2,3,4],[1,2,3,4],[1,2,3,4],[1,2,3,4]]",
    "space.widths=[8,16,16,32]",
    "stages.supernet.train.steps=300",
    "stages.supernet.train.checkpoint_every=10",
    "dilations.supernet.train.steps=150",
    "dilations.supernet.train.checkpoint_every=10",
    "dilations.controller.options={beam: 3}",
)
"""The 31 allocations and 66 greedy evaluations of the demo, on smaller images and networks; supernets are trained long
enough that some of the moments fall into it."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Kill ``delay`` seconds after the event that the uninterrupted search had at this position."""

    position: int
    event: str
    delay: float


class Search:
    """One run directory, its log of events, and processes that work on it one after another."""

    def __init__(self, directory: Path, recipe: Path, settings: Sequence[str]) -> None:
        self.run, self.log = directory / "run", directory / "calls.log"
        directory.mkdir(parents=True)
        self.log.touch()
        overrides = [word for text in settings for word in ("--set", text)]
        self._begin = ["search", str(recipe), "--run", str(self.run), *overrides]
        self.errors = directory / "errors.txt"

    def start(self) -> subprocess.Popen[bytes]:
        """``nas search`` at first, ``nas resume`` afterwards."""
        begun = (self.run / "recipe.yaml").exists()
        words = ["resume", str(self.run)] if begun else self._begin
        with self.errors.open("wb") as sink:
            return subprocess.Popen(
                [sys.executable, str(WATCHED), str(self.log), "never", *words],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=sink,
            )

    def follow(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Each new event as it is written, until the process ends."""
        with self.log.open(encoding="utf-8") as file:
            file.seek(0, os.SEEK_END)
            alive, rest = True, ""
            while alive:
                alive = process.poll() is None
                rest += file.read()
                *lines, rest = rest.split("\n")
                yield from lines
                time.sleep(0.002)

    def require_success(self, process: subprocess.Popen[bytes]) -> None:
        """Raise with the process's own words if it failed."""
        if process.wait() != 0:
            raise RuntimeError(f"the search failed:\n{self.errors.read_text(errors='replace')}")

    def trials(self) -> list[list[Any]]:
        """Phase, number, digest, value and state of every trial."""
        with Study.open(self.run, read_only=True) as study:
            return [
                [phase, record.number, record.digest, record.value, record.state]
                for phase in study.phase_names()
                for record in study.records(phase)
            ]


def uninterrupted(search: Search) -> list[tuple[float, str]]:
    """Carry a search out; its distinct events and when they came."""
    process, began = search.start(), time.monotonic()
    events: dict[str, float] = {}
    for line in search.follow(process):
        events.setdefault(line, time.monotonic() - began)
    search.require_success(process)
    return [(seconds, line) for line, seconds in events.items()]


def draw_moments(events: Sequence[tuple[float, str]], count: int, seed: int) -> list[Moment]:
    """Moments uniform in time, in order, as an event and a delay after it, so that any machine can repeat them."""
    rng = random.Random(seed)
    times = sorted(rng.uniform(events[0][0], events[-1][0]) for _ in range(count))
    moments = []
    for moment in times:
        position = max(index for index, (seconds, _) in enumerate(events) if seconds <= moment)
        seconds, event = events[position]
        moments.append(Moment(position=position, event=event, delay=round(moment - seconds, 4)))
    return moments


def kill_at(search: Search, moment: Moment, order: dict[str, int]) -> str:
    """Work until the moment (or the first event after it) and kill; the last event that was written."""
    process = search.start()
    last, due = "", False
    for line in search.follow(process):
        last = line
        if not due and order.get(line, -1) >= moment.position:
            due = True
            time.sleep(moment.delay)
            process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"ended by itself before {moment}:\n{search.errors.read_text(errors='replace')}")
    return last


def done_and_run_again(log: Path) -> list[str]:
    """Events of work that an earlier line reported done."""
    done: set[tuple[str, ...]] = set()
    again = []
    for line in log.read_text(encoding="utf-8").splitlines():
        kind, *rest = line.split()
        key = (rest[0], rest[-1]) if kind in ("score", "done") else (rest[0],)
        if kind in ("score", "done", "train", "step") and key in done:
            again.append(line)
        if kind in ("done", "trained"):
            done.add(key)
    return again


def equal_weights(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same weights and losses to the bit."""
    one, other = load_checkpoint(first), load_checkpoint(second)
    same = one["model"].keys() == other["model"].keys() and torch.equal(one["losses"], other["losses"])
    return same and all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


def measure(recipe: Path, settings: Sequence[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Both searches and their comparison."""
    whole = Search(folder / "whole", recipe, settings)
    events = uninterrupted(whole)
    order = {line: index for index, (_, line) in enumerate(events)}
    moments = draw_moments(events, kills, seed)
    killed = Search(folder / "killed", recipe, settings)
    outcomes = []
    for moment in moments:
        last = kill_at(killed, moment, order)
        states = Counter(trial[4] for trial in killed.trials()) if (killed.run / "study.log").exists() else {}
        outcomes.append(
            {
                "event": moment.event,
                "seconds_after_it": moment.delay,
                "last_event": last,
                "trials": dict(states),
            }
        )
        print(outcomes[-1], flush=True)
    process = killed.start()
    for _ in killed.follow(process):
        pass
    killed.require_success(process)
    lines = Counter(killed.log.read_text(encoding="utf-8").splitlines())
    repeated = Counter(line.split()[0] for line, times in lines.items() for _ in range(times - 1))
    del repeated["detect"]
    return {
        "kills": outcomes,
        "uninterrupted_seconds": round(events[-1][0], 1),
        "trials": len(whole.trials()),
        "trials_equal": killed.trials() == whole.trials(),
        "winner_equal": (killed.run / "winner.yaml").read_bytes() == (whole.run / "winner.yaml").read_bytes(),
        "supernets_equal": {
            phase: equal_weights(killed.run / phase / "checkpoint.pt", whole.run / phase / "checkpoint.pt")
            for phase in ("stages", "dilations")
            if (whole.run / phase).exists()
        },
        "done_and_run_again": done_and_run_again(killed.log),
        "repeated": {
            "what": "unfinished work done again: steps since the last checkpoint, the trial that was running",
            **dict(sorted(repeated.items())),
        },
    }


def main() -> int:
    """Measure, write the result, and say whether it is the one promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--set", action="append", dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    settings = [*SETTINGS, "workers=1", "threads=1", *(given.settings or [])]
    recipe = check(
        CRNASRecipe, apply_overrides(read_yaml(ROOT / given.recipe), settings), source=given.recipe
    )
    with tempfile.TemporaryDirectory() as folder:
        found = measure(ROOT / given.recipe, settings, given.kills, given.seed, Path(folder))
    result = {
        "command": " ".join(["OMP_NUM_THREADS=1 python benchmarks/kill_resume.py", *sys.argv[1:]]),
        "what": f"kill -9 at {given.kills} moments drawn uniformly over the time of a serial search",
        "seed_of_the_moments": given.seed,
        "recipe": given.recipe,
        "settings": settings,
        "machine": environment(recipe),
        **found,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    kept = (
        found["trials_equal"]
        and found["winner_equal"]
        and all(found["supernets_equal"].values())
        and not found["done_and_run_again"]
    )
    print(f"{RESULT}: {'as promised' if kept else 'NOT as promised'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
