"""Does a search react to its images? How alike two runs scored the same stage allocations.

python benchmarks/compare_scores.py FIRST.json SECOND.json [--output benchmarks/results/NAME.json]

reads two files that summarise_run.py wrote and gives Kendall's tau-b between the scores of the allocations that
both have, with a bootstrap interval over allocations, and what each run chose.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nas.report.ranking import tau_with_interval


def stage_scores(path: Path) -> dict[str, float]:
    """Allocation -> score of the stage supernet."""
    trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return {text: value for phase, _, text, value in trials if phase == "stages" and value is not None}


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Tau over the common allocations, the best of each file, and where the other file ranks it."""
    scores = [stage_scores(path) for path in (first, second)]
    common = [text for text in scores[0] if text in scores[1]]
    tau = tau_with_interval([scores[0][text] for text in common], [scores[1][text] for text in common])
    ranked = [sorted(common, key=own.__getitem__, reverse=True) for own in scores]
    return {
        "allocations": len(common),
        "tau": tau.value,
        "interval_95": [tau.low, tau.high],
        "best": {path.stem: order[0] for path, order in zip((first, second), ranked, strict=True)},
        "rank_of_the_others_best": {
            first.stem: 1 + ranked[0].index(ranked[1][0]),
            second.stem: 1 + ranked[1].index(ranked[0][0]),
        },
    }


def main() -> None:
    """Read the command line; print, and write where a file is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = {
        "command": f"python benchmarks/compare_scores.py {' '.join(sys.argv[1:])}",
        **compare(given.first, given.second),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.output is not None:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
