"""A search to be killed: run as a script by ``test_kill.py``; torch-free, so it starts in a second.

Usage: ``toy_search.py DIRECTORY CONTROLLER KILL SECONDS`` with KILL one of ``never``, ``ask:N``, ``score:N``,
``told:N``, ``report:N`` (a rung's value is written, nothing is decided), ``write:N`` (after half of the N-th record)
and ``synced:N`` (after it, the lock still held). The controller ``halving`` is evolution with rungs.
``calls.log`` gets one synced line for each score that begins and each trial reported done.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nas.controllers.base import Controller, Done
from nas.controllers.catalog import make_controller
from nas.journal import SummedJournal
from nas.pruning import Pruning
from nas.recipes.one_search import RungsRecipe
from nas.search import search
from nas.study import History, Phase, Record, Score, Study
from nas.testing import SeparableSpace, toy_score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.randomness import rng_for

SPACE = SeparableSpace(3, 3)
RUNGS = (1, 2, 4)
SETTINGS: dict[str, dict[str, Any]] = {
    "aging_evolution": {"budget": 21, "options": {"population": 5, "sample": 2}},
    "greedy": {},
    "halving": {"budget": 21, "options": {"population": 5, "sample": 2}},
    "rounds": {"budget": 21, "options": {"population": 5, "sample": 2}},
    "halving_rounds": {"budget": 21, "options": {"population": 5, "sample": 2}},
    "local_search": {"budget": 21},
    "nsga2": {"budget": 21, "options": {"sampler": "nsga2", "options": {"population_size": 5}}},
    "policy_gradient": {"budget": 21, "options": {"batch": 4}},
    "predictor_guided": {"budget": 21, "options": {"initial": 6}},
    "random": {"budget": 21},
    "tpe": {"budget": 21, "options": {"sampler": "tpe", "options": {"n_startup_trials": 4}}},
}


class Killer:
    """Kills this process at the N-th time it passes a place."""

    def __init__(self, spec: str) -> None:
        self.place, _, number = spec.partition(":")
        self.left = int(number or 0)

    def due(self, place: str) -> bool:
        if place != self.place:
            return False
        self.left -= 1
        return self.left == 0

    def passes(self, place: str) -> None:
        if self.due(place):
            kill()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Watched:
    """A controller that can be killed inside an ask, after the proposal is computed."""

    def __init__(self, controller: Controller, killer: Killer) -> None:
        self.controller, self.killer = controller, killer

    def ask(self, history: History) -> Candidate | Done | None:
        asked = self.controller.ask(history)
        self.killer.passes("ask")
        return asked

    def winner(self, history: History) -> Architecture | None:
        return self.controller.winner(history)


def tear_writes(killer: Killer) -> None:
    whole = SummedJournal._append

    def append(self: SummedJournal, lines: list[bytes]) -> int:
        if killer.due("write"):
            self._lock.acquire()
            with self._path.open("ab") as file:
                file.write(lines[0][: len(lines[0]) // 2])
                file.flush()
                kill()
        place = whole(self, lines)
        if killer.due("synced"):
            self._lock.acquire()
            kill()
        return place

    SummedJournal._append = append  # type: ignore[method-assign]


def kill_after_reports(killer: Killer) -> None:
    whole = Phase.report

    def report(self: Phase, number: int, step: int, value: float) -> Record:
        record = whole(self, number, step, value)
        killer.passes("report")
        return record

    Phase.report = report  # type: ignore[method-assign]


def note(directory: Path, line: str) -> None:
    with (directory / "calls.log").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def main(directory: Path, name: str, spec: str, seconds: float) -> None:
    killer = Killer(spec)
    tear_writes(killer)
    kill_after_reports(killer)
    worth = toy_score(SPACE)

    class Scored:
        def __call__(self, candidate: Candidate) -> Score:
            note(directory, f"score {candidate.digest}")
            time.sleep(seconds)
            killer.passes("score")
            return Score(value=worth(candidate).value, attributes={"note": candidate.digest})

        def at(self, candidate: Candidate, step: int) -> Score:
            note(directory, f"measure {candidate.digest} {step}")
            # Near the end of the row the order is the final one; before, it is half noise.
            return Score(value=worth(candidate).value + rng_for(step, candidate.digest).random() / step)

        def drop(self, candidate: Candidate) -> None:
            pass

    def report(record: Record, history: History) -> None:
        note(directory, f"done {record.digest} {record.number}")
        killer.passes("told")

    with Study.open(directory) as study:
        settings = SETTINGS[name]
        kind = {"nsga2": "optuna", "tpe": "optuna", "halving": "aging_evolution"}.get(name, name)
        if name.endswith("rounds"):
            kind = "aging_evolution"
        controller = make_controller(kind, space=SPACE, seed=3, **settings)
        phase = study.phase("toy", SPACE, 3)
        pruning = None
        if name.startswith("halving"):
            pruning = Pruning(RungsRecipe(first=RUNGS[0], reduction=2), total_steps=8, phase="toy")
        winner = search(
            phase=phase,
            controller=Watched(controller, killer),
            score=Scored(),
            batch=4 if name.endswith("rounds") else 1,
            on_trial=report,
            pruning=pruning,
        )
        note(directory, f"winner {winner.digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
