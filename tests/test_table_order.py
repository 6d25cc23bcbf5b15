"""Cheap scores against a table: they are those of its networks, and committed results are of the committed tables."""

import json
import runpy
from pathlib import Path

import pytest

from nas.methods.truth import compare
from nas.proxies.tabular import read_table
from search_spaces.cost import cost

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/tables/order.py"))
RESULTS = sorted((ROOT / "benchmarks/results").glob("order_*.json"))


def test_scores_are_of_the_networks_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "benchmarks/tables/crnas_digits.json"
    BENCHMARK["main"]([str(path), "--limit", "4", "--to", str(tmp_path / "order.json")])
    found = json.loads((tmp_path / "order.json").read_text())
    table = read_table(path)
    aps = [table.truth()[one.architecture.digest] for one in table.networks[:4]]
    assert found["networks"] == 4 and found["seeds"] == len(table.seeds)
    assert found["ap"]["lowest"] == round(min(aps), 2) and found["ap"]["highest"] == round(max(aps), 2)
    assert list(found["rows"])[:5] == [
        "AP after 4 of 24 epochs",
        "AP after 16 of 24 epochs",
        "NASWOT",
        "synflow",
        "entropy",
    ]
    sizes = [cost(one.architecture, table.image_size).params for one in table.networks[:4]]
    pairs = [(a, b) for a in range(4) for b in range(a)]
    agree = sum((sizes[a] > sizes[b]) == (aps[a] > aps[b]) for a, b in pairs)
    assert found["rows"]["parameters"]["tau"]["value"] == pytest.approx((2 * agree - 6) / 6)
    assert "only 4 networks" in found["warning"] and "tau-b" in capsys.readouterr().out


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_are_of_the_committed_tables(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    table = read_table(ROOT / f"benchmarks/tables/{found['table']}.json")
    assert found["ap"] == BENCHMARK["spread"](table)
    assert (found["networks"], found["seeds"]) == (len(table.networks), len(table.seeds))
    middle = table.epochs[len(table.epochs) // 2]
    scores = {
        one.architecture.digest: sum(some[len(table.epochs) // 2] for some in one.scores.values())
        for one in table.networks
    }
    rows = compare({"middle": scores}, table, phase="table").to_dict()["rows"]
    name = f"AP after {middle:g} of {table.epochs[-1]:g} epochs"
    assert found["rows"][name]["tau"]["value"] == pytest.approx(rows["middle"]["tau"]["value"])
    assert found["rows"]["MACs"]["tau"] == rows["MACs"]["tau"]
