"""The benchmark of controllers on public tables: its spaces, how it counts, and what its committed result claims."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from nas.controllers.base import DONE
from nas.testing import check_space
from nas.trials import History
from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidArchitecture
from search_spaces.randomness import rng_for

ROOT = Path(__file__).parents[1]
GENES = {"a": (0, 1, 2), "b": (3, 5), "c": (0, 1, 2)}
POOL = [(0, 3, 0), (2, 5, 2), (1, 3, 1), (2, 3, 0)]


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts, which lie beside each other and are no package."""
    import importlib

    names = ("certify", "certify_peers", "certify_tables", "certify_picture")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def certify(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["certify"]


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    found = shared_data.parent / "tables"
    if not (found / "nas_bench_macro").is_dir():
        pytest.skip(f"needs shared data; {found} holds no nas_bench_macro")
    return found


@pytest.fixture(scope="module")
def small(modules: dict[str, ModuleType]) -> Any:
    """A table of 27 networks; the score of a code is its digits, read as a number to base three."""
    tables = modules["certify_tables"]
    space = tables.CodeSpace("small", dict.fromkeys("abc", (0, 1, 2)))
    scores = {}
    for architecture in space.enumerate():
        code = architecture.genes["code"]
        scores[architecture.digest] = float(9 * code[0] + 3 * code[1] + code[2])
    return tables.PublicTable(space, scores, {digest: {"macs": 1.0, "params": 1.0} for digest in scores})


def test_a_table_of_every_code_is_a_space(small: Any) -> None:
    check_space(small.space)
    assert small.best == 26.0


def test_a_table_of_a_few_codes_is_a_space(modules: dict[str, ModuleType]) -> None:
    space = modules["certify_tables"].PoolSpace("pool", GENES, POOL)
    check_space(space)
    assert (space.size, space.distinct) == (18, 4)
    assert [one.genes["code"] for one in space.enumerate()] == POOL
    nearest = space.architecture({"a": 1, "b": 5, "c": 2})
    assert nearest.genes["code"] == (2, 5, 2), "one gene differs"
    assert space.architecture({"a": 0, "b": 5, "c": 1}).genes["code"] == (0, 3, 0), "of equals the first"
    mutants = {space.mutate(space.baseline, rng_for(0, "test", place)) for place in range(40)}
    assert space.baseline not in mutants and len(mutants) > 1
    stranger = Architecture.from_dict(
        {**space.baseline.to_dict(), "genes": {**space.baseline.to_dict()["genes"], "code": [0, 5, 0]}}
    )
    with pytest.raises(InvalidArchitecture, match="not in the table"):
        space.values(stranger)


class Scripted:
    """Proposes codes from a list."""

    def __init__(self, table: Any, codes: list[tuple[int, int, int]]) -> None:
        self.codes = [table.space.of_code(code) for code in codes]

    def ask(self, history: History) -> Any:
        return self.codes[len(history)] if len(history) < len(self.codes) else DONE

    def winner(self, history: History) -> None:
        return None


def test_only_distinct_architectures_are_counted(certify: ModuleType, small: Any) -> None:
    codes = [(0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 0, 1), (0, 0, 2), (2, 0, 0)]
    found = certify.explore(lambda table, seed: Scripted(table, codes), small, length=3, seed=0)
    assert (found.scores, found.proposals) == ([1.0, 3.0, 2.0], 5)
    assert found.regret(26.0, 5) == [25.0, 23.0, 23.0, 23.0, 23.0], "one that ended keeps its last"
    found = certify.explore(lambda table, seed: Scripted(table, codes), small, length=20, seed=0, target=3.0)
    assert found.scores == [1.0, 3.0], "it has what it can get"


def test_a_controller_that_repeats_itself_is_given_up(certify: ModuleType, small: Any) -> None:
    codes = [(0, 0, 1)] * 500
    found = certify.explore(lambda table, seed: Scripted(table, codes), small, length=3, seed=0)
    assert (len(found.scores), found.proposals) == (1, 3 * certify.PATIENCE)
    found = certify.explore(lambda table, seed: Scripted(table, codes), small, length=3, seed=0, patience=2)
    assert found.proposals == 6


def test_a_prefix_costs_its_completions(certify: ModuleType, small: Any) -> None:
    found = certify.explore(certify.named("greedy", beam=1), small, length=27, seed=0)
    # Three options of each of three genes; the last three are whole, and one of them may have been met.
    assert found.proposals == 9 and 9 <= len(found.scores) <= 6 * certify.COMPLETIONS + 3


def test_hypervolume_by_hand(certify: ModuleType) -> None:
    """Two steps of a staircase, a dominated point, and one outside of the reference."""
    points = [(2.0, 1.0), (5.0, 3.0), (4.0, 3.5), (9.0, 12.0)]
    assert certify.hypervolume(points, (1.0, 6.0)) == (2 - 1) * (6 - 1) + (5 - 2) * (6 - 3)
    assert certify.hypervolume([], (1.0, 6.0)) == 0.0


def test_a_small_comparison(certify: ModuleType, small: Any) -> None:
    arms = {"random": certify.named("random"), "ours": certify.guided()}
    task = certify.Task("small", (10, 20), arms)
    explored = {
        name: {seed: certify.explore(make, small, length=20, seed=seed) for seed in range(3)}
        for name, make in arms.items()
    }
    curves = {
        name: {seed: certify.curve(task, small, one) for seed, one in seeds.items()}
        for name, seeds in explored.items()
    }
    assert {len(one) for seeds in curves.values() for one in seeds.values()} == {20}
    found = certify.summary(task, small, explored, curves)
    assert found["minus_best_peer"].keys() == {"ours"}
    for count in ("10", "20"):
        difference = found["minus_best_peer"]["ours"][count]
        means = found["mean_over_seeds_at"]
        assert difference["peer"] == "random"
        assert difference["mean"] == pytest.approx(means["ours"][count] - means["random"][count], abs=2e-4)


def test_the_picture_is_a_picture(modules: dict[str, ModuleType]) -> None:
    curves = {"one": [[3.0, 1.0, 0.0], [2.0, 2.0, 0.5]], "two & more": [[1.0, 1.0, 1.0]]}
    text = modules["certify_picture"].picture({"a <title>": curves, "b": curves})
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "a <title>" in {one.text for one in root.iter() if one.tag.endswith("text")}
    assert len([one for one in root.iter() if one.tag.endswith("path")]) == 2 * 2 * 2


def test_the_public_tables_are_read_whole(folder: Path, modules: dict[str, ModuleType]) -> None:
    tables = modules["certify_tables"]
    macro = tables.macro_table(folder)
    assert len(macro.scores) == macro.space.size == 6561
    best = max(macro.scores, key=lambda digest: macro.scores[digest])
    assert best == macro.space.of_code((2, 2, 2, 1, 2, 2, 2, 0)).digest
    assert macro.best == pytest.approx(93.1267, abs=1e-4)
    accel = tables.accel_table(folder)
    assert len(accel.scores) == accel.space.distinct == 5123
    assert accel.best == 67.052
    check_space(accel.space, samples=10)


def test_it_reproduces_the_bands_of_random_search_and_is_below_those_of_tpe(
    folder: Path, modules: dict[str, ModuleType], certify: ModuleType
) -> None:
    """Thirty seeds are in the committed result; here are a few."""
    table = modules["certify_tables"].macro_table(folder)

    def regret(make: Any, seeds: int) -> float:
        found = [
            certify.explore(make, table, length=50, seed=seed, target=table.best) for seed in range(seeds)
        ]
        return sum(one.regret(table.best, 50)[-1] for one in found) / seeds

    assert regret(certify.named("random"), 30) == pytest.approx(0.36, abs=0.06)
    assert regret(certify.guided(), 4) < certify.BANDS["tpe"][0]


def test_nobody_finds_what_is_not_there(
    folder: Path, modules: dict[str, ModuleType], certify: ModuleType
) -> None:
    """Scores dealt out at random: whoever still beats random search by far has seen them by another way."""
    tables = modules["certify_tables"]
    table = tables.macro_table(folder)
    values = list(table.scores.values())
    rng_for(0, "dealt").shuffle(values)
    dealt = tables.PublicTable(table.space, dict(zip(table.scores, values, strict=True)), table.costs)

    def regret(make: Any) -> float:
        found = [certify.explore(make, dealt, length=40, seed=seed) for seed in range(6)]
        return sum(one.regret(dealt.best, 40)[-1] for one in found) / len(found)

    assert regret(certify.guided()) > 0.6 * regret(certify.named("random"))


def test_the_largest_come_first(certify: ModuleType, small: Any) -> None:
    codes = list(small.space.enumerate())
    costs = {one.digest: {"macs": float(place % 7), "params": 1.0} for place, one in enumerate(codes)}
    sized = type(small)(small.space, small.scores, costs)
    found = certify.explore(certify.largest_first, sized, length=4, seed=0)
    assert found.scores == [float(place) for place in (6, 13, 20, 5)]


PEER_ARMS = {
    "neps, evolution": 18,
    "neps, evolution mended": 16,
    "neps, bayesian": 5,
    "syne_tune, evolution": 12,
    "syne_tune, kde": 15,
    "syne_tune, bore": 8,
    "syne_tune, cqr": 7,
}
"""Arm of another toolkit -> distinct networks, of 27, with which it is beyond its random beginning."""


@pytest.fixture
def peer(request: pytest.FixtureRequest, modules: dict[str, ModuleType]) -> Any:
    """How an arm of another toolkit is made, where that is installed."""
    peers = modules["certify_peers"]
    toolkit, found = next(
        (toolkit, arms[request.param])
        for kind in (peers.QUICK, peers.SLOW, peers.SLOWEST)
        for toolkit, arms in kind.items()
        if request.param in arms
    )
    if toolkit in peers.missing():
        pytest.skip(f"needs {peers.PACKAGES[toolkit]}")
    return found


@pytest.mark.parametrize(("peer", "length"), PEER_ARMS.items(), indirect=["peer"])
def test_a_searcher_of_another_toolkit_proposes_by_its_seed_alone(
    peer: Any, length: int, certify: ModuleType, small: Any
) -> None:
    """What the process drew before does not matter."""
    found = [certify.explore(peer, small, length=length, seed=seed) for seed in (1, 2, 1)]
    assert found[0].scores == found[2].scores != found[1].scores
    assert len(set(found[0].scores)) == len(found[0].scores) == length


def scored_by_their_sum(modules: dict[str, ModuleType], sign: int) -> Any:
    """Options that are not their own places, and names that are no identifiers."""
    tables = modules["certify_tables"]
    space = tables.CodeSpace("long", {f"gene.{place}": (7, 3, 5) for place in range(7)})
    scores = {one.digest: float(sign * sum(one.genes["code"])) for one in space.enumerate()}
    return tables.PublicTable(space, scores, {})


@pytest.mark.parametrize(
    ("peer", "length"),
    [("neps, evolution mended", 60), ("syne_tune, evolution", 180)],
    indirect=["peer"],
)
def test_a_searcher_of_another_toolkit_is_told_which_is_better(
    peer: Any, length: int, modules: dict[str, ModuleType], certify: ModuleType
) -> None:
    """Were the sign lost, it would end among the worst of the table and not among the best."""
    for sign in (1, -1):
        found = certify.explore(peer, scored_by_their_sum(modules, sign), length=length, seed=0)
        assert sum(found.scores[-20:]) / 20 > 35 * sign + 2, "35 is the mean"


@pytest.mark.parametrize("peer", ["neps, evolution"], indirect=True)
def test_what_is_said_of_the_evolution_of_neps_is_so(
    peer: Any, modules: dict[str, ModuleType], certify: ModuleType
) -> None:
    """Once it differs, NePS was mended and our own mending can go."""
    found = [certify.explore(peer, scored_by_their_sum(modules, sign), length=60, seed=0) for sign in (1, -1)]
    assert found[0].scores == [-score for score in found[1].scores]


def test_without_the_toolkits_their_arms_are_absent_and_named(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    peers = modules["certify_peers"]
    assert set(peers.NAMES) == set(PEER_ARMS)
    for module in peers.TOOLKITS.values():
        monkeypatch.setitem(sys.modules, module, None)
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    without = importlib.import_module("certify")
    assert without.not_compared() == ["NePS: not installed", "Syne Tune: not installed"]
    assert not {arm for task in without.TASKS.values() for arm in task.arms} & set(peers.NAMES)
    assert not set(without.SLOW_TASKS) & set(without.TASKS)


def test_the_committed_result_says_what_it_claims(certify: ModuleType) -> None:
    found = json.loads((ROOT / "benchmarks/results/certify.json").read_text(encoding="utf-8"))
    assert found["seeds"] == 30
    assert found["at_or_below_the_bands"]["predictor_guided"] == [True, True, True]
    assert set(found["tasks"]) == set(certify.TASKS) - set(certify.SLOW_TASKS)
    for label, task in found["tasks"].items():
        assert set(task["mean_over_seeds_at"]) <= set(certify.TASKS[label].arms)
    ElementTree.fromstring((ROOT / "benchmarks/results/certify.svg").read_text(encoding="utf-8"))


def test_the_committed_results_of_other_toolkits_say_what_they_claim(
    modules: dict[str, ModuleType], certify: ModuleType
) -> None:
    peers = modules["certify_peers"]
    quick = {arm for arms in peers.QUICK.values() for arm in arms}
    results = ROOT / "benchmarks/results"
    found = json.loads((results / "certify_peers.json").read_text(encoding="utf-8"))
    before = json.loads((results / "certify.json").read_text(encoding="utf-8"))
    assert found["seeds"] == 30 and set(found["toolkits_of_others"]) == set(peers.TOOLKITS)
    (macro,) = found["tasks"].values()
    means = macro["mean_over_seeds_at"]
    assert quick <= set(means) <= quick | set(certify.TASKS["macro"].arms)
    assert set(macro["minus_peers_of_other_toolkits"]["predictor_guided"]) == quick
    for arm in set(means) - quick:
        assert means[arm] == before["tasks"]["macro"]["mean_over_seeds_at"][arm], "the same seeds as before"
    assert found["at_or_below_the_bands"]["predictor_guided"] == [True, True, True]
    assert not any(any(found["at_or_below_the_bands"][arm]) for arm in quick)
    slow = json.loads((results / "certify_slow_peers.json").read_text(encoding="utf-8"))
    assert set(slow["tasks"]) == set(certify.SLOW_TASKS) and slow["seeds"] == 30 and not slow["not_explored"]
    for label, (at, arms_of) in certify.SLOW_TASKS.items():
        fitted = {arm for arms in arms_of.values() for arm in arms}
        of_all = slow["tasks"][label]
        means = of_all["mean_over_seeds_at"]
        assert fitted < set(means) and {"predictor_guided", "tpe"} <= set(means)
        counts = [str(count) for count in at]
        for arm in set(means) - fitted:
            known = before["tasks"]["macro"]["mean_over_seeds_at"][arm]
            assert means[arm] == {count: known[count] for count in counts}, "the same seeds as before"
        for ours in ("predictor_guided", "predictor_guided, encoding alone"):
            apart = of_all["minus_peers_of_other_toolkits"][ours]
            assert set(apart) == fitted and all(one["50"]["interval_95"][1] < 0 for one in apart.values())
            assert all(one[count]["mean"] <= 0 for one in apart.values() for count in counts)
    for name in ("certify_peers", "certify_slow_peers"):
        ElementTree.fromstring((results / f"{name}.svg").read_text(encoding="utf-8"))
