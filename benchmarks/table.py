"""Write two tables of docs/evidence.md: of complete searches, and of proxies beside networks trained alone.

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
START, RANKS, END = "<!-- table -->\n", "<!-- ranks -->\n", "<!-- end -->"
SEVERAL = 3
"""Seeds that a supernet needs for its mean rank with NASWOT to have a line."""


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


def ranks() -> list[str]:
    """One line a proxy, from benchmarks/results/proof.json, the highest tau first."""
    arms = json.loads((ROOT / "benchmarks/results/proof.json").read_text(encoding="utf-8"))["arms"]
    lines = []
    for name, one in sorted(arms.items(), key=lambda arm: -(arm[1]["mean_tau"]["value"] or 0.0)):
        taus, mean = one["tau"], one["mean_tau"]
        alone = name.startswith("mean rank of") and "mean of" not in name
        if not taus or (alone and len(taus) < SEVERAL):
            continue
        spread = "" if len(taus) == 1 else f" ({min(taus):.2f} to {max(taus):.2f})"
        lines.append(
            f"| {name} | {len(taus)} | {mean['value']:.2f}{spread} | {mean['low']:.2f} to {mean['high']:.2f} | "
            f"{statistics.fmean(one['regret_at_3']):.2f} | {statistics.fmean(one['ap_of_winners']):.1f} | "
            f"{100 * one['share_of_table']:.1f} % |"
        )
    return lines


def replaced(text: str, start: str, lines: list[str]) -> str:
    """The page with these lines between a mark and the next end."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(END)
    return before + start + "\n".join(lines) + "\n" + END + after


def main() -> None:
    """Replace what stands between the marks."""
    path = ROOT / "docs/evidence.md"
    present = [name for name in RESULTS if (ROOT / "benchmarks/results" / f"{name}.json").exists()]
    lines = ["| file in `benchmarks/results/` | network | architecture | AP | deviation | seeds |"]
    lines += ["|---|---|---|---|---|---|", *(line for name in present for line in rows(name))]
    lines += ["", "Winner minus baseline, paired by seed:", "", *(difference(name) for name in present)]
    text = replaced(path.read_text(encoding="utf-8"), START, lines)
    lines = [
        "| order by | seeds | tau-b (lowest to highest) | 95 % | regret at 3 | AP of the winner | cost of the table |"
    ]
    lines += ["|---|---|---|---|---|---|---|", *ranks()]
    path.write_text(replaced(text, RANKS, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
