"""A search of milliseconds over candidates that fail, kill or hold up whoever scores them; each call leaves a file."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from nas.controllers.base import Controller
from nas.controllers.catalog import make_controller
from nas.engines.base import Engine
from nas.proxies.base import Proxy
from nas.pruning import Pruning
from nas.recipes.one_search import RungsRecipe
from nas.search import search
from nas.study import History, Record, Study
from nas.testing import SeparableSpace, toy_score
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed, DataError
from search_spaces.randomness import rng_for

SPACE = SeparableSpace(3, 3)
FAILING, KILLING, HANGING, STARVING = "failing", "killing", "hanging", "starving"


class Toy:
    """Scores at once; some candidates fail, some kill, starve or hold up whoever scores them."""

    def __init__(self, directory: Path, trouble: dict[str, str]) -> None:
        self.directory, self.trouble, self.worth = directory, trouble, toy_score(SPACE)

    def __call__(self, candidate: Candidate) -> Score:
        return self.at(candidate, 0)

    def at(self, candidate: Candidate, step: int) -> Score:
        # One file a call: several processes write.
        (self.directory / f"{candidate.digest}-{step}-{os.getpid()}-{time.monotonic_ns()}").touch()
        trouble = self.trouble.get(candidate.digest)
        if trouble == KILLING:
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == HANGING:
            time.sleep(60)
        if trouble == STARVING:
            raise MemoryError
        if trouble == FAILING:
            raise CandidateFailed("loss is nan at step 3")
        noise = rng_for(step, candidate.digest).random() / (step or 8)
        return Score(value=self.worth(candidate).value + noise, attributes={"steps": step or 8})

    def drop(self, candidate: Candidate) -> None:
        """Nothing waits."""


def calls(directory: Path) -> list[tuple[str, int]]:
    """Digest and step of every call."""
    names = (file.name.split("-") for file in directory.iterdir())
    return sorted((digest, int(step)) for digest, step, *_ in names)


def refuse() -> Proxy:
    raise DataError("images/3.png: no such file on this node")


def die() -> Proxy:
    os._exit(3)


class Wrong:
    def __call__(self, candidate: Candidate) -> Score:
        raise ZeroDivisionError("a mistake of ours")


class Own(CandidateFailed):
    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")


class OwnFailure:
    def __call__(self, candidate: Candidate) -> Score:
        raise Own(3, "nan")


class Patient:
    """Scores a candidate as soon as there is a file of its name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, candidate: Candidate) -> Score:
        for _ in range(3000):
            if (self.directory / candidate.digest).exists():
                return Score(value=1.0)
            time.sleep(0.01)
        raise CandidateFailed("nobody has heard of it")


class Threads:
    """Says how many threads its process would take."""

    def __call__(self, candidate: Candidate) -> Score:
        return Score(
            value=float(torch.get_num_threads()),
            attributes={"variable": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid()},
        )


def controller_named(name: str, budget: int | None) -> Controller:
    options: dict[str, Any] = {"aging_evolution": {"population": 5, "sample": 2}}.get(name, {})
    return make_controller(name, space=SPACE, seed=3, budget=budget, options=options)


def halving() -> Pruning:
    return Pruning(RungsRecipe(first=1, reduction=2), total_steps=8, phase="toy")


def searched(
    directory: Path,
    engine: AbstractContextManager[Engine | None],
    *,
    trouble: dict[str, str] | None = None,
    controller: str = "aging_evolution",
    rungs: bool = False,
    budget: int = 22,
    batch: int = 4,
    rounds: bool = True,
    kind: type[Toy] = Toy,
    stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Record, History], None] | None = None,
) -> tuple[Architecture, History]:
    """A search whose calls are noted in ``directory/calls``."""
    (directory / "calls").mkdir(parents=True, exist_ok=True)
    with Study.open(directory) as study, engine as opened:
        phase = study.phase("toy", SPACE, 3)
        winner = search(
            phase=phase,
            controller=controller_named(controller, budget),
            score=kind(directory / "calls", trouble or {}),
            engine=opened,
            batch=batch,
            rounds=rounds,
            stop=stop,
            on_trial=on_trial,
            limits=lambda one: "over the limit" if int(one.digest, 16) % 7 == 0 else None,
            pruning=halving() if rungs else None,
        )
        return winner, phase.history()


def outline(history: History) -> list[tuple[object, ...]]:
    return [
        (r.number, r.digest, r.state, r.value, r.reason, dict(r.attributes), dict(r.intermediate))
        for r in history
    ]
