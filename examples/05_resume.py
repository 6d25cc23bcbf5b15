"""A search is killed and goes on; nothing that was reported done is lost: python examples/05_resume.py [DIR]

The same on the command line: nas search ..., kill -9, nas resume runs/examples/killed
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from nas.show import summary

ENOUGH = 8


def scored(directory: Path) -> dict[tuple[str, int], float]:
    """Phase and number -> score of every trial that is done."""
    if not (directory / "study.log").exists():
        return {}
    done = [trial for trial in summary(directory)["trials"] if trial["state"] == "complete"]
    return {(trial["phase"], trial["number"]): trial["value"] for trial in done}


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples") / "killed"
    shutil.rmtree(directory, ignore_errors=True)
    recipe = Path(__file__).parent / "recipes/first_search.yaml"
    nas = [sys.executable, "-m", "nas.cli"]
    # Without the final table: this is about the search.
    search = [*nas, "search", str(recipe), "--run", str(directory), "--set", "retrain=null"]
    with subprocess.Popen(search, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(scored(directory)) < ENOUGH:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    before = scored(directory)
    print(f"killed after {len(before)} trials")

    subprocess.run([*nas, "resume", str(directory)], stdout=subprocess.DEVNULL, check=True)
    after = scored(directory)
    assert before.items() <= after.items(), "a score was lost or has changed"
    print(f"resumed: {len(after)} trials, the first {len(before)} of them as they were")
    # And derived again from the journal, choice by choice.
    subprocess.run([*nas, "replay", str(directory)], check=True)
