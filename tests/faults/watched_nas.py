"""``nas`` under watch, to be killed: run as a script by ``test_run_kill.py`` and ``benchmarks/kill_resume.py``.

Usage: ``watched_nas.py LOG KILL ARGUMENTS...``, for example ``watched_nas.py calls.log never search recipe.yaml
--run DIR``. LOG gets one synced line for each event: ``step DIRECTORY N`` (done), ``score DIRECTORY DIGEST``
(begins), ``detect DIRECTORY`` (a mini-batch of scoring begins), ``done PHASE NUMBER DIGEST`` (reported),
``train DIRECTORY`` (a training to completion begins) and ``trained DIRECTORY``. KILL is ``never`` or
``N:PREFIX``: SIGKILL right after the N-th line that starts so.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nas.methods.crnas_supernets
import nas.methods.retraining
import nas.methods.searching
import nas.proxies.supernet
import nas.training
from nas.cli import main
from nas.proxies.supernet import SupernetProxy
from nas.search import search
from nas.study import History, Record, Score
from nas.training import TrainingJob, train_to_completion
from search_spaces.architecture import Architecture, Candidate
from trainers.evaluate import boxes_evaluating
from trainers.loop import StepRecord, Trainer


class Watch:
    """Writes the events down, and kills this process at the one asked for."""

    def __init__(self, log: Path, kill: str) -> None:
        number, _, self._prefix = kill.partition(":")
        self._left = int(number) if self._prefix else 0
        self._file = log.open("a", encoding="utf-8")

    def note(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._prefix and line.startswith(self._prefix):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


def install(watch: Watch) -> None:
    """Put the watch around training, scoring and reporting; what they compute stays what it is."""

    class WatchedTrainer(Trainer):
        def __init__(
            self, *, directory: Path | None, on_step: Callable[[StepRecord], None] | None, **rest: Any
        ) -> None:
            assert directory is not None
            self._name = directory.name if "retrain" not in directory.parts else place(directory)

            def note(step: StepRecord) -> None:
                watch.note(f"step {self._name} {step.step}")
                if on_step is not None:
                    on_step(step)

            super().__init__(directory=directory, on_step=note, **rest)

    class WatchedProxy(SupernetProxy):
        def __call__(self, candidate: Candidate) -> Score:
            watch.note(f"score {self.directory.name} {candidate.digest}")

            def watched_detect(*args: Any, **rest: Any) -> Any:
                watch.note(f"detect {self.directory.name}")
                return boxes_evaluating(*args, **rest)

            nas.proxies.supernet.boxes_evaluating = watched_detect  # type: ignore[attr-defined]
            return super().__call__(candidate)

    def watched_search(
        *, on_trial: Callable[[Record, History], None] | None = None, **rest: Any
    ) -> Architecture:
        def note(record: Record, history: History) -> None:
            watch.note(f"done {record.phase} {record.number} {record.digest}")
            if on_trial is not None:
                on_trial(record, history)

        return search(on_trial=note, **rest)

    def watched_training(job: TrainingJob, *rest: Any) -> dict[str, Any]:
        watch.note(f"train {place(job.directory)}")
        result = train_to_completion(job, *rest)
        watch.note(f"trained {place(job.directory)}")
        return result

    nas.proxies.supernet.Trainer = WatchedTrainer  # type: ignore[misc]
    nas.training.Trainer = WatchedTrainer  # type: ignore[attr-defined]
    nas.methods.crnas_supernets.SupernetProxy = WatchedProxy  # type: ignore[misc]
    nas.methods.searching.search = watched_search  # type: ignore[attr-defined]
    nas.methods.retraining.train_to_completion = watched_training  # type: ignore[attr-defined]


def place(directory: Path) -> str:
    """``<digest>/seed-<n>`` of a training of the final table."""
    return "/".join(directory.parts[-2:])


if __name__ == "__main__":
    install(Watch(Path(sys.argv[1]), sys.argv[2]))
    del sys.argv[1:3]
    main()
