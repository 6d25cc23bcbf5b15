"""Write the table of docs/evidence.md from the results of complete searches.

python benchmarks/table.py
"""

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = (
    "crnas_bccd_first",
    "crnas_bccd_second",
    "crnas_bccd",
    "crnas_nuclei",
    "spinenet_digits_first",
    "spinenet_digits",
    "spinenet_ablations",
    "spinenet_bccd_first",
    "spinenet_bccd",
)
START, END = "<!-- table -->\n", "<!-- end -->"


def rows(name: str) -> list[str]:
    """One line a network: its file, role, genes, AP over seeds."""
    table = json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text(encoding="utf-8"))["table"]
    lines = []
    for role, network in table.items():
        values = [metrics["AP"] for metrics in network["metrics_by_seed"].values()]
        if not values:
            continue
        deviation = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        mean = statistics.mean(values)
        architecture = network["architecture"].replace("|", r"\|")
        lines.append(
            f"| `{name}.json` | {role} | {architecture} | {mean:.2f} | {deviation} | {len(values)} |"
        )
    return lines


def difference(name: str) -> str:
    """Winner minus baseline, paired by seed, as one line."""
    found = json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text(encoding="utf-8"))
    change = found["winner_minus_baseline"]
    low, high = change["interval_95"]
    return (
        f"- `{name}.json`: {change['mean']:+.2f} AP, 95 % interval {low:+.2f} to {high:+.2f}, standard error "
        f"{change['standard_error']:.2f}, {len(change['seeds'])} seeds"
    )


def main() -> None:
    """Replace what stands between the two marks."""
    path = ROOT / "docs/evidence.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    present = [name for name in RESULTS if (ROOT / "benchmarks/results" / f"{name}.json").exists()]
    lines = ["| file in `benchmarks/results/` | network | architecture | AP | deviation | seeds |"]
    lines += ["|---|---|---|---|---|---|", *(line for name in present for line in rows(name))]
    lines += ["", "Winner minus baseline, paired by seed:", "", *(difference(name) for name in present)]
    path.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
