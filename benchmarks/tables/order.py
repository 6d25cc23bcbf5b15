"""What costs nothing or nearly nothing against a table: does it order the networks as their trainings do?

    python benchmarks/tables/order.py TABLE.json [--root DIR] [--limit N] [--to FILE]

Counted: parameters, multiply-adds, activations, the largest receptive field. At random weights: NASWOT on images of the
training split, synflow, entropy. From the table itself: AP at the first and at the middle evaluation. That is of the
same trainings whose end is the truth, so it tells how soon a training shows where it ends, and not how well a second
one would foretell it.

``--root`` is the folder of the table's images, where it has any. The result, benchmarks/results/order_TABLE.json: for
each tau-b with its interval and the other statistics of ``nas rank``; the spread of AP over the networks; and what the
noise of the trainings allows, where the table has two seeds or more.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from nas.config import check
from nas.methods.truth import compare
from nas.proxies.tabular import Table, read_table
from nas.proxies.zero_cost import entropy, first_images, naswot, synflow
from nas.report.rank_report import COLUMNS, RankReport, rank_lines, rank_rows
from nas.run import environment
from trainers.data.catalog import open_split
from trainers.recipes import DataRecipe

RESULTS = Path(__file__).parents[1] / "results"


def ordered(table: Table, data: DataRecipe) -> RankReport:
    """All of them against the truth."""
    networks = {one.architecture.digest: one.architecture for one in table.networks}
    images = first_images(open_split(data, "train"))
    size = table.image_size
    scores = {
        f"AP after {table.epochs[place]:g} of {table.epochs[-1]:g} epochs": {
            one.architecture.digest: fmean(found[place] for found in one.scores.values())
            for one in table.networks
        }
        for place in (0, len(table.epochs) // 2)
    }
    scores["NASWOT"] = {digest: naswot(one, images) for digest, one in networks.items()}
    scores["synflow"] = {digest: synflow(one, size) for digest, one in networks.items()}
    scores["entropy"] = {digest: entropy(one, size) for digest, one in networks.items()}
    return compare(scores, table, phase="table")


def spread(table: Table) -> dict[str, float]:
    """Of the networks' mean APs."""
    aps = table.truth().values()
    found = {"lowest": min(aps), "mean": fmean(aps), "highest": max(aps), "deviation": stdev(aps)}
    return {name: round(value, 2) for name, value in found.items()}


def main(words: Sequence[str]) -> None:
    """Compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--root", help="folder of its images in COCO form")
    parser.add_argument("--limit", type=int, help="look at so many networks only")
    parser.add_argument("--to", type=Path)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    table = read_table(given.table)
    table = replace(table, networks=table.networks[: given.limit])
    data = replace(check(DataRecipe, table.about["recipe"]["data"], source=str(given.table)), root=given.root)
    shown = [f"benchmarks/tables/{given.table.name}"]
    shown += [] if given.root is None else ["--root", f"DIR/{Path(given.root).name}"]
    shown += [] if given.limit is None else ["--limit", str(given.limit)]
    report = ordered(table, data)
    said: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/tables/order.py", *shown]),
        "ap": spread(table),
        **report.to_dict(),
        "environment": environment() | {"threads": 1},
    }
    path = given.to or RESULTS / f"order_{table.name}.json"
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    for row in (COLUMNS, *rank_rows(report)):
        print(f"{row[0]:<28}" + "".join(f"{cell:>15}" for cell in row[1:]))
    print(json.dumps(said["ap"]), *rank_lines(report), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
