"""Trainings that are killed, run as a script by ``test_killed_trainings.py``: ``killed_trainings.py JOBS FOLDER``.

JOBS is JSON: jobs as of ``two_ranks.py`` with ``kills``, steps after which the process that trains gets a SIGKILL.
Every life of a training is a process of its own, forked from this one before it has computed anything. FOLDER gets the
state of each training in ``NAME.whole.pt``, that was left alone, and ``NAME.killed.pt``.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from two_ranks import train

from trainers.loop import StepRecord
from trainers.ranks import ALONE


def live(job: dict[str, Any], kill_after: int | None, result: Path) -> int:
    """One life of a training: minus the signal that ended it, or 0."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def hook(record: StepRecord) -> None:
        if record.step == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save(train(job, ALONE, hook), result)
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    for name, job in json.loads(sys.argv[1]).items():
        for kind, kills in (("whole", []), ("killed", job["kills"])):
            place = {**job, "directory": str(folder / name / kind)}
            for step in kills:
                assert live(place, step, folder / "none.pt") == -signal.SIGKILL, (name, step)
            assert live(place, None, folder / f"{name}.{kind}.pt") == 0
