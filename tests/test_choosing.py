"""The choice by mean rank of score and NASWOT: the function, the search that uses it, and what says so afterwards."""

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import nas.choosing
import nas.methods.searching
import nas.proxies.supernet
from nas.choosing import ByMeanRank, best_by_mean_rank, mean_ranks, naswot_of
from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.controllers.base import DONE
from nas.controllers.exhaustive import Exhaustive
from nas.methods.catalog import check_search, procedure
from nas.methods.crnas import carry_out
from nas.methods.data import read_data
from nas.methods.replaying import replay_run
from nas.methods.reporting import collect, write_report
from nas.methods.spaces import crnas_recipe, stage_space
from nas.methods.truth import rank_run
from nas.planning import Work
from nas.progress import Silent
from nas.proxies.tabular import Table, TabularNetwork, read_table
from nas.proxies.zero_cost import IMAGES, first_images, naswot
from nas.recipes.crnas import CRNASRecipe
from nas.report import rank_quality
from nas.report.page import render
from nas.run import Run
from nas.show import histories, summary
from nas.trials import NASWOT, History, Record
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError
from trainers.learner import normalised

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
SHORT = ("dilations=null", "retrain=null")
BY_RANK = (*SHORT, "stages.choose_by=mean_rank")
SPACE = stage_space(crnas_recipe(check_search(read_yaml(TINY), source="tiny")).space)
NETWORKS = tuple(SPACE.enumerate())


def tiny(*overrides: str) -> CRNASRecipe:
    return check(CRNASRecipe, apply_overrides(read_yaml(TINY), overrides), source="tiny.yaml")


def record(
    number: int, value: float | None, free: float | None, network: Architecture | None = None
) -> Record:
    found = NETWORKS[number] if network is None else network
    return Record(
        number=number,
        phase="stages",
        candidate=found,
        digest=found.digest,
        value=value,
        state="failed" if value is None else "complete",
        attributes={} if free is None else {NASWOT: free},
    )


def test_ranks_by_hand() -> None:
    history = (record(0, 10.0, 5.0), record(1, 30.0, 1.0), record(2, 20.0, 4.0), record(3, 5.0, 2.0))
    # By score 2, 4, 3, 1; by NASWOT 4, 1, 3, 2.
    assert mean_ranks(history) == {0: 3.0, 1: 2.5, 2: 3.0, 3: 1.5}
    assert best_by_mean_rank(history) == NETWORKS[0], "the first of equals, not the one with the higher score"
    assert best_by_mean_rank(history[1:]) == NETWORKS[2]


def test_equals_share_the_mean_of_their_ranks() -> None:
    history = (record(0, 7.0, 1.0), record(1, 7.0, 2.0), record(2, 7.0, 3.0), record(3, 9.0, 3.0))
    # By score 2, 2, 2, 4; by NASWOT 1, 2, 3.5, 3.5.
    assert mean_ranks(history) == {0: 1.5, 1: 2.0, 2: 2.75, 3: 3.75}
    same = tuple(record(place, 7.0, 1.0) for place in range(4))
    assert mean_ranks(same) == dict.fromkeys(range(4), 2.5) and best_by_mean_rank(same) == NETWORKS[0]


def test_who_has_not_both_numbers_has_no_rank() -> None:
    whole = (record(0, 1.0, 1.0), record(1, 2.0, 2.0))
    more = (*whole, record(2, None, None), record(3, 9.0, None), record(4, 9.0, 9.0, NETWORKS[1]))
    assert mean_ranks(more) == mean_ranks(whole) == {0: 1.0, 1: 2.0}, "an equal network counts once"
    assert best_by_mean_rank(more) == NETWORKS[1]
    assert mean_ranks(()) == {} and best_by_mean_rank(()) is None
    assert best_by_mean_rank((record(0, 5.0, None),)) is None


def test_the_benchmarks_use_the_same_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    proof = runpy.run_path(str(ROOT / "benchmarks/proof.py"))
    proxies = runpy.run_path(str(ROOT / "benchmarks/proxies.py"))
    assert proof["mean_rank"] is proxies["mean_rank"] is rank_quality.mean_rank
    assert nas.choosing.mean_rank is rank_quality.mean_rank
    assert proxies["naswot"] is nas.proxies.supernet.naswot is naswot
    assert proxies["first_images"] is nas.proxies.supernet.first_images is first_images


def test_the_search_chooses_what_was_measured() -> None:
    """The winners of benchmarks/results/proof.json, equals included, for every supernet and seed."""
    table = read_table(ROOT / "benchmarks/tables/crnas_bccd.json")
    found = json.loads((ROOT / "benchmarks/results/proxies_crnas_bccd.json").read_text(encoding="utf-8"))[
        "scores"
    ]
    arms = json.loads((ROOT / "benchmarks/results/proof.json").read_text(encoding="utf-8"))["arms"]
    recipe = check_search(read_yaml(ROOT / "examples/recipes/crnas_bccd.yaml"), source="bccd")
    space = stage_space(crnas_recipe(recipe).space)
    free, compared, equals = found["naswot"][0], 0, 0
    for name in (name for name in found if name.startswith("supernet")):
        for scores, winner in zip(
            found[name], arms[f"mean rank of naswot and {name}"]["winners"], strict=True
        ):
            history: tuple[Record, ...] = ()
            controller = ByMeanRank(Exhaustive(space))
            while isinstance(one := controller.ask(history), Architecture):
                told = record(len(history), scores[one.digest], free[one.digest], one)
                history = (*history, told)
            assert one is DONE and len(history) == len(table.networks) == 31
            chosen = controller.winner(history)
            assert chosen is not None and chosen.digest == winner
            ranks = list(mean_ranks(history).values())
            compared, equals = compared + 1, equals + (ranks.count(max(ranks)) > 1)
    assert compared >= 20 and equals >= 3


def test_the_images_are_the_first_that_differ() -> None:
    data = read_data(tiny(*BY_RANK)).train_set
    images = data.images[:]
    assert torch.equal(first_images(data), normalised(images)), (
        "all, where there are fewer than are looked at"
    )
    assert len(images) < IMAGES == 32
    twice = replace(data, images=torch.cat((images[:1], images, images)), targets=(data.targets * 3)[:37])
    assert torch.equal(first_images(twice), normalised(images))
    many = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 32, 32).contiguous()
    assert torch.equal(
        first_images(replace(data, images=many, targets=(data.targets * 3)[:40])), normalised(many[:IMAGES])
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The search by score."""
    run = Run.create(tmp_path_factory.mktemp("plain") / "run", tiny(*SHORT))
    carry_out(run, Silent())
    return run


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same by mean rank."""
    run = Run.create(tmp_path_factory.mktemp("ranked") / "run", tiny(*BY_RANK))
    carry_out(run, Silent())
    return run


def numbers(history: History) -> list[tuple[str, float | None, float | None]]:
    return [(one.digest, one.value, naswot_of(one)) for one in history]


def test_naswot_stands_beside_an_unchanged_score(plain: Run, ranked: Run) -> None:
    before, after = histories(plain)["stages"], histories(ranked)["stages"]
    assert [(one.digest, one.value) for one in before] == [(one.digest, one.value) for one in after]
    assert all(naswot_of(one) is None for one in before)
    images = first_images(read_data(ranked.recipe).train_set)
    for one in after:
        assert isinstance(one.candidate, Architecture)
        assert naswot_of(one) == naswot(one.candidate, images), "at random weights of seed 0, to the bit"
    assert ranked.read_winner() == best_by_mean_rank(after)
    assert plain.read_winner() == max(before, key=lambda one: one.value or 0.0).candidate
    assert len({naswot_of(one) for one in after}) == 6


def test_its_images_are_booked_and_foreseen(plain: Run, ranked: Run) -> None:
    data = read_data(ranked.recipe).train_set
    train, macs = len(data), cost(SPACE.baseline, data.image_size).macs
    for without, beside in zip(histories(plain)["stages"], histories(ranked)["stages"], strict=True):
        assert beside.images_seen - without.images_seen == train
        assert beside.macs_spent - without.macs_spent == train * beside.attributes["macs"]
    works = []
    for run in (plain, ranked):
        parts = list(procedure(run.recipe).foreseen(run, read_data(run.recipe)))
        works.append(next(one for one in parts if isinstance(one, Work) and one.name == "stages: scoring"))
    assert works[0].macs is not None and works[1].macs is not None
    assert works[1].macs - works[0].macs == train * macs
    assert works[0].least == 4 and works[1].least is None, "a rank among some of them was not asked for"


def opposed(plain: Run) -> Callable[[Architecture, torch.Tensor], float]:
    """A NASWOT by which the second of the scores is the best and the first the worst."""
    order = sorted(histories(plain)["stages"], key=lambda one: one.value or 0.0)
    best, second, *rest = [one.digest for one in reversed(order)]
    places = {digest: place for place, digest in enumerate([best, *reversed(rest), second])}
    return lambda architecture, images: float(places[architecture.digest]) + 0.0 * len(images)


def test_where_the_two_disagree_another_network_wins_than_that_of_the_highest_score(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.proxies.supernet, "naswot", opposed(plain))
    run = Run.create(tmp_path / "run", tiny(*BY_RANK))
    winner = carry_out(run, Silent())
    scored = sorted(histories(run)["stages"], key=lambda one: -(one.value or 0.0))
    assert winner == scored[1].candidate != scored[0].candidate == plain.read_winner()
    assert run.read_winner() == winner and summary(run.directory)["winner"]["digest"] == winner.digest
    assert mean_ranks(histories(run)["stages"])[scored[1].number] == 5.5
    assert all(one.difference is None for one in replay_run(run)), "and the same when it is decided again"


def test_the_dilations_are_those_of_the_allocation_chosen(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.proxies.supernet, "naswot", opposed(plain))
    run = Run.create(tmp_path / "run", tiny("retrain=null", "stages.choose_by=mean_rank"))
    winner = carry_out(run, Silent())
    scored = sorted(histories(run)["stages"], key=lambda one: -(one.value or 0.0))
    chosen = scored[1].candidate
    assert isinstance(chosen, Architecture) and winner.genes["blocks"] == chosen.genes["blocks"]
    assert run.read_rivals()["stages"] == chosen
    assert all(naswot_of(one) is None for one in histories(run)["dilations"])
    assert all(one.difference is None for one in replay_run(run))


def test_a_stopped_run_goes_on_to_the_same_winner(
    ranked: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", tiny(*BY_RANK))
    asked: list[str] = []

    def stopping(architecture: Architecture, images: torch.Tensor) -> float:
        asked.append(architecture.digest)
        if len(asked) == 4:
            raise RuntimeError("stopped here")
        return naswot(architecture, images)

    monkeypatch.setattr(nas.proxies.supernet, "naswot", stopping)
    with pytest.raises(RuntimeError, match="stopped here"):
        carry_out(run, Silent())
    assert [one.state for one in histories(run)["stages"]] == ["complete"] * 3 + ["running"]
    assert carry_out(Run.open(run.directory), Silent()) == ranked.read_winner()
    assert numbers(histories(run)["stages"]) == numbers(histories(ranked)["stages"])
    assert sorted(asked) == sorted([*(one.digest for one in NETWORKS), asked[3]]), "once a candidate"


def test_workers_find_the_same(ranked: Run, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny(*BY_RANK, "engine=processes", "workers=2"))
    assert carry_out(run, Silent()) == ranked.read_winner()
    assert numbers(histories(run)["stages"]) == numbers(histories(ranked)["stages"])


def test_a_budget_that_cannot_hold_all_allocations_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny(*BY_RANK, "budget=5 trials"))
    with pytest.raises(ConfigError, match=r"budget: found 5 trials.*stages: scoring 6 trials"):
        carry_out(run, Silent())
    assert histories(run) == {} or not histories(run)["stages"]
    enough = Run.create(tmp_path / "enough", tiny(*BY_RANK, "budget=6 trials"))
    carry_out(enough, Silent())
    assert len(histories(enough)["stages"]) == 6


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("stages.choose_by=mean_rank", "stages.controller.name=greedy"),
            r"tiny\.yaml: stages\.choose_by: found 'mean_rank'; allowed with stages\.controller greedy is score: ranks "
            r"are taken among all allocations",
        ),
        (
            ("stages.choose_by=mean_rank", "stages.controller={target: 'own.py:Mine'}"),
            r"allowed with stages\.controller own\.py:Mine is score",
        ),
        (
            ("stages.choose_by=mean_rank", "stages.controller={name: random, budget: 6}"),
            r"allowed with stages\.controller random is score",
        ),
        (
            ("stages.choose_by=mean_rank", "stages.race={first: 4}"),
            r"tiny\.yaml: stages\.choose_by: found 'mean_rank'; allowed with stages\.race is score: .* a race stops",
        ),
        (
            ("dilations.choose_by=mean_rank",),
            r"tiny\.yaml: dilations\.choose_by: found 'mean_rank'; allowed is score: no dilations were trained alone",
        ),
        (
            ("stages.choose_by=naswot",),
            r"stages\.choose_by: found 'naswot'; allowed is 'score' or 'mean_rank'",
        ),
    ],
)
def test_what_cannot_be_chosen_by_mean_rank_is_refused_with_the_reason(
    overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        tiny(*overrides)
    assert str(caught.value).count("\n") == 0, "one sentence"


def test_images_that_do_not_differ_are_refused_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", tiny(*BY_RANK))
    data = read_data(run.recipe)
    images = data.train_set.images[:1].expand(len(data.train_set), -1, -1, -1)
    same = replace(data, train_set=replace(data.train_set, images=images.contiguous()))
    monkeypatch.setattr(nas.methods.searching, "open_data", lambda *_: same)
    with pytest.raises(
        ConfigError, match=r"stages\.choose_by: found 'mean_rank'; allowed for 18 images.* is score"
    ):
        carry_out(run, Silent())
    assert not (run.directory / "stages").exists()


def test_what_was_chosen_by_what_is_said(plain: Run, ranked: Run) -> None:
    said = CliRunner().invoke(app, ["show", str(ranked.directory)])
    assert said.exit_code == 0, said.output
    assert "allocation by" in said.stdout and "mean of two ranks" in said.stdout
    history = histories(ranked)["stages"]
    ranks = mean_ranks(history)
    for one in history:
        (line,) = (
            line for line in said.stdout.splitlines() if line.startswith(f"stages     {one.number:>4}")
        )
        assert (
            f"{one.value:.2f}" in line
            and f"{naswot_of(one):.3f}" in line
            and f" {ranks[one.number]:g} " in line
        )
    data = summary(ranked.directory)
    assert [trial["naswot"] for trial in data["trials"]] == [naswot_of(one) for one in history]
    assert [trial["mean_rank"] for trial in data["trials"]] == list(ranks.values())
    other = CliRunner().invoke(app, ["show", str(plain.directory)])
    assert "highest AP in the supernet" in other.stdout and "NASWOT" not in other.stdout
    assert "NASWOT" in json.dumps(data["allocation_chosen_by"])


def test_the_page_has_both_numbers(plain: Run, ranked: Run) -> None:
    page = write_report(ranked, Silent()).read_text(encoding="utf-8")
    assert "The allocation is chosen by: best mean of two ranks" in page
    assert "Both numbers of 6 allocations" in page and '<th scope="col">NASWOT</th>' in page
    for one in histories(ranked)["stages"]:
        assert f"<td>{naswot_of(one):.3f}</td>" in page
    report = collect(plain)
    without = render(report)
    assert "The allocation is chosen by: highest AP in the supernet" in without
    assert "Both numbers" not in without and "NASWOT" not in without


def test_naswot_and_the_mean_rank_stand_beside_the_proxy(plain: Run, ranked: Run) -> None:
    history = histories(ranked)["stages"]
    ranks = mean_ranks(history)
    # The truth is NASWOT itself, so that one row is perfect.
    table = Table(
        name="made_up",
        space="six allocations",
        images_trained=24,
        epochs=(1.0,),
        image_size=(64, 64),
        networks=tuple(
            TabularNetwork(
                architecture=NETWORKS[one.number],
                params=cost(NETWORKS[one.number], (64, 64)).params,
                macs=cost(NETWORKS[one.number], (64, 64)).macs,
                scores={0: (naswot_of(one) or 0.0,)},
            )
            for one in history
        ),
    )
    (found,) = rank_run(ranked, table)
    assert list(found.rows)[:3] == ["proxy", "NASWOT", "mean rank of both"]
    assert found.rows["NASWOT"].tau.value == pytest.approx(1.0)
    truth = [naswot_of(one) or 0.0 for one in history]
    expected = rank_quality.kendall_tau([ranks[one.number] for one in history], truth)
    assert found.rows["mean rank of both"].tau.value == expected
    (without,) = rank_run(plain, table)
    assert without.rows["proxy"] == found.rows["proxy"] and "NASWOT" not in without.rows


def test_a_recipe_without_the_option_is_what_it_was() -> None:
    assert tiny().stages.choose_by == "score" and tiny().dilations is not None
    assert tiny("stages.choose_by=score") == tiny()
