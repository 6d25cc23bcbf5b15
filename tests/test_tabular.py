"""Tables of networks trained alone: their files, scores looked up, one built small, and runs ranked against one."""

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.reporting import write_report
from nas.methods.spaces import crnas_recipe, stage_space
from nas.methods.truth import compare, rank_run, table_macs, trivial
from nas.progress import Silent
from nas.proxies.tabular import Table, TabularNetwork, TabularProxy, read_table, write_table
from nas.report.rank_report import rank_lines
from nas.run import Run
from nas.study import Study
from nas.trials import Score
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import CandidateFailed, RunError

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
BUILD = runpy.run_path(str(ROOT / "benchmarks/tables/build.py"))
TABLES = sorted((ROOT / "benchmarks/tables").glob("*.json"))


def tiny_networks() -> list[Architecture]:
    recipe = check_search(read_yaml(TINY), source="tiny")
    return list(stage_space(crnas_recipe(recipe).space).enumerate())


def tiny_table(networks: list[Architecture], *, seeds: int = 2) -> Table:
    """AP falls with the place of a network; the second seed is a point above, and each epoch ten."""
    return Table(
        name="tiny",
        space="six allocations",
        images_trained=24,
        epochs=(1.0, 2.0),
        image_size=(64, 64),
        networks=tuple(
            TabularNetwork(
                architecture=one,
                params=cost(one, (64, 64)).params,
                macs=cost(one, (64, 64)).macs,
                scores={seed: (20.0 - place + seed, 30.0 - place + seed) for seed in range(seeds)},
            )
            for place, one in enumerate(networks)
        ),
        about={"recipe_digest": "0"},
    )


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    table = tiny_table(tiny_networks())
    write_table(table, tmp_path / "table.json")
    again = read_table(tmp_path / "table.json")
    assert again == table and again.seeds == (0, 1)
    assert list(again.truth().values()) == [30.5 - place for place in range(6)]
    assert list(again.truth([1], 0).values()) == [21.0 - place for place in range(6)]
    with pytest.raises(RunError, match=r"not every network was trained under the seeds \[7\]"):
        again.truth([7])
    assert again.networks[0].score([0, 7]) is None, "a mean over fewer seeds would stand beside one over all"


def test_a_table_without_a_whole_seed_says_so() -> None:
    networks = tiny_networks()
    table = tiny_table(networks)
    begun = replace(table, networks=(replace(table.networks[0], scores={}), *table.networks[1:]))
    with pytest.raises(RunError, match="no seed is complete, so its 6 networks cannot be compared"):
        begun.truth()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "vertebra-table-9"}, "format: found 'vertebra-table-9'; allowed is 'vertebra-table-1'"),
        ({"data": "cells"}, "data: found 'cells'; allowed is a mapping"),
        ({"recipe": [1]}, "recipe: found [1]; allowed is a mapping"),
        ({"recipe": {"data": 3}}, "recipe.data: found 3; allowed is a mapping"),
        ({"epochs": []}, "allowed are 0 finite numbers"),
        ({"epochs": 3}, "is no table"),
        ({"networks": [3]}, "is no table"),
        ({"epochs": None}, "is no table"),
        ({"networks": [{}]}, "the field 'architecture' is missing"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({**tiny_table(tiny_networks()).to_dict(), **change}))
    with pytest.raises(RunError, match=r"table\.json") as error:
        read_table(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("digest", "0" * 16, "is not that of its architecture"),
        ("AP", {"0": [1.0]}, "allowed are 2 finite numbers, one an epoch"),
        ("AP", {"0": [1.0, float("nan")]}, "allowed are 2 finite numbers"),
        ("AP", {"first": [1.0, 2.0]}, "invalid literal"),
    ],
)
def test_a_network_that_does_not_fit_its_table_is_refused(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    data = tiny_table(tiny_networks()).to_dict()
    data["networks"][2][field] = value
    (tmp_path / "table.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match=said):
        read_table(tmp_path / "table.json")


def test_twice_the_same_network_is_refused(tmp_path: Path) -> None:
    networks = tiny_networks()
    write_table(tiny_table([networks[0], networks[0]]), tmp_path / "table.json")
    with pytest.raises(RunError, match="the same one stands there twice"):
        read_table(tmp_path / "table.json")
    with pytest.raises(RunError, match="cannot be read as a table"):
        read_table(tmp_path / "none.json")


def test_scores_are_looked_up() -> None:
    networks = tiny_networks()
    table = tiny_table(networks[:5])
    assert TabularProxy(table)(networks[1]).value == 29.5
    early = TabularProxy(table, epoch=0, seeds=[1])(networks[1])
    assert early.value == 20.0 and early.attributes == {"images_in_table": 24.0}
    with pytest.raises(CandidateFailed, match="has no score"):
        TabularProxy(table)(networks[5])


def test_macs_of_a_table_are_those_of_its_trainings() -> None:
    table = tiny_table(tiny_networks())
    each = sum(one.macs for one in table.networks)
    assert table_macs(table) == 2 * 3 * 24 * 2.0 * each
    half = replace(table, networks=(replace(table.networks[0], scores={0: (1.0, 2.0)}), *table.networks[1:]))
    assert table_macs(table) - table_macs(half) == 3 * 24 * 2.0 * table.networks[0].macs


def test_a_proxy_stands_beside_what_costs_nothing() -> None:
    networks = tiny_networks()
    table = tiny_table(networks)
    truth = table.truth()
    found = compare(
        {"right": truth, "wrong": {key: -value for key, value in truth.items()}}, table, phase="stages"
    )
    assert found.rows["right"].tau.value == 1.0 and found.rows["wrong"].tau.value == -1.0
    assert found.rows["right"].regret.value == 0.0 and found.ceiling.tau == pytest.approx(1.0)
    assert set(found.rows) == {"right", "wrong", *trivial(networks, (64, 64))}
    assert found.warning is not None and "only 6 networks" in found.warning
    with pytest.raises(RunError, match=r"2 of its 6 networks have a score in stages; allowed is 3"):
        compare({"few": dict(list(truth.items())[:2])}, table, phase="stages")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run whose six allocations have scores, and a table of them."""
    folder = tmp_path_factory.mktemp("ranked")
    run = Run.create(
        folder / "run", check_search(apply_overrides(read_yaml(TINY), ["dilations=null"]), source="tiny")
    )
    networks = tiny_networks()
    with Study.open(run.directory) as study:
        phase = study.phase("stages", stage_space(crnas_recipe(run.recipe).space), 0)
        for place, one in enumerate(networks):
            value = 10.0 - place if place else 5.5
            phase.finish(phase.begin(one).number, Score(value=value))
    write_table(tiny_table(networks), folder / "table.json")
    return run, folder / "table.json"


def test_a_run_is_ranked_against_a_table(scored: tuple[Run, Path]) -> None:
    run, path = scored
    (found,) = rank_run(run, read_table(path))
    # The truth's best network is fifth for the proxy, so four of fifteen pairs are in the wrong order.
    assert found.phase == "stages" and found.networks == 6
    assert found.rows["proxy"].tau.value == pytest.approx(1 - 2 * 4 / 15)
    assert found.rows["proxy"].recall.value == pytest.approx(2 / 3)
    assert found.rows["proxy"].regret.value == 1.0


def test_other_images_are_another_truth(scored: tuple[Run, Path], tmp_path: Path) -> None:
    run, path = scored
    facts = {"image_size": [64, 64], "categories": ["1", "7"], "held_out": ["a"], "train": ["b"]}
    elsewhere = Run.create(tmp_path / "run", run.recipe)
    for name in ("study.log", "study.sums"):
        (elsewhere.directory / name).write_bytes((run.directory / name).read_bytes())
    elsewhere.write_json("data.json", facts)
    table = replace(read_table(path), images_trained=2)
    assert "other images" not in str(rank_run(elsewhere, table)[0].warning)
    other = replace(table, image_size=(96, 128), about={"data": {"categories": ["cell"]}})
    said = str(rank_run(elsewhere, other)[0].warning)
    assert "other images" in said and "size in px [64, 64], there [96, 128]" in said
    assert "categories ['1', '7'], there ['cell']" in said
    more = replace(table, images_trained=table.images_trained + 1)
    assert "images of train 2, there 3" in str(rank_run(elsewhere, more)[0].warning)
    scenes = replace(table, about={"recipe": {"data": {"source": "digits", "digits": {"seed": 5}}}})
    assert "scenes" in str(rank_run(elsewhere, scenes)[0].warning)
    photos = replace(table, about={"recipe": {"data": {"source": "coco", "digits": {"seed": 5}}}})
    assert "scenes" not in str(rank_run(elsewhere, photos)[0].warning)


def test_a_top_tenth_of_three_networks_is_not_leant_on() -> None:
    table = read_table(ROOT / "benchmarks/tables/crnas_bccd.json")
    lines = rank_lines(compare({"proxy": table.truth()}, table, phase="stages"))
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: the top tenth is 3 networks of 13 that an interval needs; its tau says little"
    ]


def test_the_command_says_it_in_words_and_in_json(scored: tuple[Run, Path]) -> None:
    run, path = scored
    said = CliRunner().invoke(app, ["rank", str(run.directory), "--truth", str(path)])
    assert said.exit_code == 0, said.output
    for word in ("stages", "proxy", "parameters", "ceiling", "warning: only 6 networks"):
        assert word in said.stdout
    data = json.loads(
        CliRunner().invoke(app, ["rank", str(run.directory), "--truth", str(path), "--json"]).stdout
    )
    assert data[0]["rows"]["proxy"]["tau"]["value"] == pytest.approx(1 - 2 * 4 / 15)


def test_a_table_of_other_networks_is_refused(scored: tuple[Run, Path], tmp_path: Path) -> None:
    run, path = scored
    table = read_table(path)
    write_table(replace(table, networks=table.networks[:2]), tmp_path / "other.json")
    said = CliRunner().invoke(app, ["rank", str(run.directory), "--truth", str(tmp_path / "other.json")])
    assert said.exit_code == 2 and "no phase has scored three networks of table tiny" in said.stderr


def test_the_page_of_a_run_shows_it(scored: tuple[Run, Path]) -> None:
    run, path = scored
    page = write_report(run, Silent(), truth=path).read_text(encoding="utf-8")
    assert "against the table tiny" in page and "Ceiling: a proxy without error" in page
    assert write_report(run, Silent()).read_text(encoding="utf-8").count(
        "against the table tiny"
    ) == page.count("against the table tiny"), "it stays on the page"


def test_latencies_are_added_to_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table = tiny_table(tiny_networks())
    write_table(table, path)
    BUILD["main"](["crnas_digits", "--latency", "--to", str(path)])
    found = read_table(path)
    assert all(one.latency_ms is not None and one.latency_ms > 0 for one in found.networks)
    assert found.about["latency"]["threads"] == 1
    assert replace(found, about=table.about, networks=table.networks) == table
    with pytest.raises(SystemExit):
        BUILD["main"](["crnas_digits"])


def test_a_table_is_built_piece_by_piece(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One training is done, the builder stops; called again it takes the file up and trains nothing twice."""
    path = tmp_path / "table.json"
    words = ["crnas_digits", "--dir", str(tmp_path / "runs"), "--to", str(path), "--seeds", "1", "--small"]
    entry = BUILD["TABLES"]["crnas_digits"]
    recipe = BUILD["searched"](entry, None, True)
    table = BUILD["begun"]("crnas_digits", entry, recipe, entry.networks(recipe), path)
    assert len(table.networks) == 31
    jobs = list(BUILD["missing"](table, recipe, [21_000], tmp_path / "runs"))
    assert len(jobs) == 31
    result = BUILD["train_or_fail"](jobs[0])
    table = BUILD["with_result"](table, jobs[0], result)
    table = BUILD["with_result"](table, jobs[1], {"seed": 21_000, "reason": "the loss is NaN"})
    write_table(table, path)
    again = BUILD["begun"]("crnas_digits", entry, recipe, entry.networks(recipe), path)
    assert again.networks[0].scores == {21_000: tuple(round(100 * one["AP"], 2) for one in result["curve"])}
    assert len(list(BUILD["missing"](again, recipe, [21_000], tmp_path / "runs"))) == 29
    assert str(tmp_path) not in path.read_text()
    BUILD["main"]([*words, "--hours", "0"])
    assert "2 of 31 trained" in capsys.readouterr().out
    other = json.loads(path.read_text())
    changed = {**other["recipe"], "train": {**other["recipe"]["train"], "lr": 7.0}}
    path.write_text(json.dumps({**other, "recipe": changed}))
    with pytest.raises(SystemExit, match="holds trainings by another recipe"):
        BUILD["main"](words)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_tables_of_the_repository_are_whole(path: Path) -> None:
    """Every network belongs to the space that the builder names, costs are right, and no score was made up."""
    table = read_table(path)
    entry = BUILD["TABLES"][path.stem]
    recipe = check_search(
        apply_overrides(read_yaml(ROOT / entry.recipe), list(entry.changes)), source=entry.recipe
    )
    assert [one.architecture for one in table.networks] == entry.networks(recipe)
    assert BUILD["agrees"](table.about["recipe"], BUILD["facts"](entry, recipe)["recipe"])
    for one in table.networks:
        found = cost(one.architecture, table.image_size)
        assert (one.params, one.macs) == (found.params, found.macs)
        assert all(0.0 <= value <= 100.0 for scores in one.scores.values() for value in scores)
        assert all(seed >= entry.first_seed for seed in one.scores)


def test_the_page_on_tables_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "docs/tables.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3
