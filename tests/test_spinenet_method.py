"""SpineNet carried out whole on the tiny recipe: limits before cost, equal trials after a stop, an export."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from typer.testing import CliRunner

import nas.methods.one_search
import nas.methods.searching
from nas.cli import app
from nas.config import apply_overrides, dump_yaml, read_yaml
from nas.export.bundle import load_bundle
from nas.latency import LATENCY, MEASURED, LatencyRatio
from nas.methods.catalog import baseline_of, check_search, procedure
from nas.methods.limits import Limits
from nas.methods.one_search import expense
from nas.methods.replaying import replay_run
from nas.methods.reporting import collect
from nas.methods.shipping import open_scorer
from nas.methods.spinenet import carry_out, check_recipe
from nas.methods.spinenet_space import narrowed, spinenet_recipe, spinenet_space
from nas.progress import Silent
from nas.proxies.short_training import ShortTraining
from nas.recipes.one_search import LimitsRecipe
from nas.recipes.spinenet import SpineNetRecipe
from nas.report.page import read_report
from nas.run import Run
from nas.show import histories, summary
from nas.study import Phase, Record
from nas.trials import Json, Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, RunError
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.spinenet.ablations import FISH

TINY = Path(__file__).parent / "recipes/tiny_spinenet.yaml"


def tiny(*overrides: str) -> SpineNetRecipe:
    found = check_search(apply_overrides(read_yaml(TINY), overrides), source="tiny_spinenet.yaml")
    assert isinstance(found, SpineNetRecipe)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(tmp_path_factory.mktemp("runs") / "spinenet", tiny())
    carry_out(run, Silent())
    return run


def test_the_run_ends_with_table_bundle_and_report(finished: Run) -> None:
    shown = summary(finished.directory)
    assert shown["state"] == "complete"
    assert [trial["phase"] for trial in shown["trials"]] == ["search"] * 5 + ["random"] * 5
    assert shown["best"] == max(trial["value"] for trial in shown["trials"] if trial["phase"] == "search")
    assert len({trial["digest"] for trial in shown["trials"] if trial["phase"] == "search"}) == 5
    page = (finished.directory / "report.html").read_text()
    assert "SpineNet: tiny_spinenet" in page and "short trainings" in page
    architecture, weights = load_bundle(finished.directory / "bundle")
    assert architecture == finished.read_winner() and weights is not None
    body = family_of(architecture).build(architecture, seed=0)
    body.load_state_dict(weights)


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_find_what_this_process_finds(finished: Run, tmp_path: Path, engine: str) -> None:
    run = Run.create(tmp_path / "run", tiny(f"engine={engine}", "workers=2", "retrain=null"))
    counted: list[int] = []

    class Counting(Silent):
        def advance(self, done: int, note: str = "") -> None:
            counted.append(done)

    winner = carry_out(run, Counting())
    assert counted == [1, 2, 3, 4, 5], "trials that have ended, not those of the round under way"
    assert winner == finished.read_winner()
    found, expected = histories(run)["search"], histories(finished)["search"]
    assert [(one.digest, one.value, one.round) for one in found] == [
        (one.digest, one.value, one.round) for one in expected
    ]
    assert not list((run.directory / "search").iterdir()), "no checkpoint of a scored candidate is left"


def test_a_run_is_derived_again_and_a_changed_one_named(
    finished: Run,
    tmp_path: Path,
) -> None:
    found = replay_run(finished)
    assert [(one.phase, one.asked, one.difference) for one in found] == [
        ("search", 5, None),
        ("random", 5, None),
    ]
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory, copy)
    recipe = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(re.sub(r"^seed: 3$", "seed: 4", recipe, flags=re.MULTILINE))
    answered = CliRunner().invoke(app, ["replay", str(copy), "--json"])
    assert answered.exit_code == 1
    assert all(
        one["difference"].startswith("trial 0: the journal has ") for one in json.loads(answered.stdout)
    )
    (copy / "recipe.yaml").write_text(recipe)
    winners = {one.digest for one in (finished.read_winner(), finished.read_rivals()["random"]) if one}
    other = next(one for one in histories(finished)["random"] if one.digest not in winners)
    changed = read_yaml(copy / "winner.yaml")
    changed["architecture"] = other.candidate.to_dict()  # type: ignore[union-attr]
    (copy / "winner.yaml").write_text(dump_yaml(changed))
    with pytest.raises(RunError, match=r"winner.yaml: holds .*the journal's winners are"):
        replay_run(Run.open(copy))


def test_a_run_goes_on_before_a_damaged_record(finished: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory, copy)
    log = copy / "study.log"
    whole = log.read_bytes()
    answered = CliRunner().invoke(app, ["resume", str(copy), "--from", "999"])
    assert answered.exit_code == 2 and "has records 1 to" in answered.stderr
    assert summary(copy)["state"] == "complete", "nothing was touched"
    lines = whole.splitlines(keepends=True)
    damaged = lines[9].replace(b'"', b"'", 1)
    log.write_bytes(b"".join([*lines[:9], damaged, *lines[10:]]))
    answered = CliRunner().invoke(app, ["resume", str(copy)])
    assert answered.exit_code == 2 and "record 10: its bytes are not those" in answered.stderr
    answered = CliRunner().invoke(app, ["resume", str(copy), "--from", "10"])
    assert answered.exit_code == 0 and "study.log.cut-0" in answered.stdout, answered.stderr
    again, before = histories(Run.open(copy)), histories(finished)
    for phase in before:
        rows = [[(one.digest, one.value, one.state) for one in found[phase]] for found in (again, before)]
        assert rows[0] == rows[1]
    assert summary(copy)["state"] == "complete"


def test_a_worker_has_the_threads_of_the_recipe(finished: Run) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert isinstance(open_scorer(finished.directory, "search"), ShortTraining)
        assert torch.get_num_threads() == finished.recipe.threads == 1
    finally:
        torch.set_num_threads(before)


def test_a_hand_made_detector_is_trained_beside_the_winner_at_equal_cost(finished: Run) -> None:
    report = json.loads((finished.directory / "report.json").read_text())
    (rival,) = report["hand_made"]
    assert rival["name"] == "resnet_fpn" and rival["architecture"]["family"] == "crnas.resnet"
    assert [result["seed"] for result in rival["results"]] == [1000]
    assert rival["detector_macs"] == pytest.approx(report["baseline"]["detector_macs"], rel=0.05)
    assert rival["macs"] != report["baseline"]["macs"], "a pyramid costs too"
    trained = json.loads((finished.directory / "retrain/resnet_fpn/seed-1000/result.json").read_text())
    assert trained["digest"] == Architecture.from_dict(rival["architecture"]).digest
    assert "resnet_fpn" in (finished.directory / "report.html").read_text()


def test_the_exported_source_equals_the_network(finished: Run, tmp_path: Path) -> None:
    """In a process that finds nothing but torch and the bundle."""
    bundle = finished.directory / "bundle"
    code = (
        "import sys, torch\n"
        f"sys.path.insert(0, {str(bundle)!r})\n"
        "from backbone import build, load\n"
        f"maps = load({str(bundle / 'weights.safetensors')!r}).eval()(torch.full((1, 3, 128, 128), 0.5))\n"
        f"torch.save(maps, {str(tmp_path / 'maps.pt')!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    architecture, weights = load_bundle(bundle)
    assert weights is not None
    body = family_of(architecture).build(architecture, seed=0)
    body.load_state_dict(weights)
    with torch.no_grad():
        expected = body.eval()(torch.full((1, 3, 128, 128), 0.5))
    found = torch.load(tmp_path / "maps.pt", weights_only=True)
    assert list(found) == list(expected) == ["p3", "p4", "p5", "p6", "p7"]
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-6)


def test_a_stopped_search_resumes_to_the_same_trials(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    whole = ShortTraining.__call__

    def stopping(self: ShortTraining, candidate: Candidate) -> Score:
        if len(scored) == 3:
            scored.append("stop")
            raise KeyboardInterrupt
        scored.append(candidate.digest)
        return whole(self, candidate)

    monkeypatch.setattr(ShortTraining, "__call__", stopping)
    run = Run.create(tmp_path / "run", tiny("retrain=null"))
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, Silent())
    carry_out(Run.open(tmp_path / "run"), Silent())
    kept = [(record.number, record.digest, record.value) for record in histories(run)["search"]]
    assert kept == [(record.number, record.digest, record.value) for record in histories(finished)["search"]]
    assert len(scored) == len(set(scored)), "nothing that was reported done ran twice"


def test_limits_reject_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def score(self: ShortTraining, candidate: Candidate) -> Score:
        trained.append(candidate.digest)
        return Score(value=float(len(trained)))

    monkeypatch.setattr(ShortTraining, "__call__", score)
    settings = (
        "space.free=[permutation, connections, levels, types]",
        "search.limits={macs: 0.9, params: 1.2}",
    )
    run = Run.create(
        tmp_path / "run",
        tiny(
            *settings,
            "search.controller={name: random, budget: 12}",
            "retrain.rivals=[random]",
            "retrain.seeds=1",
        ),
    )
    said: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr(nas.methods.one_search, "finish", lambda *rest: None)
    carry_out(run, Listener())
    states = [record.state for record in histories(run)["random"]]
    assert states.count("complete") == [r.state for r in histories(run)["search"]].count("complete")
    history = histories(run)["search"]
    pruned = [record for record in history if record.state == "pruned"]
    assert pruned and all("the limit is" in str(record.reason) for record in pruned)
    assert not {record.digest for record in pruned} & set(trained)
    base = baseline_of(run.recipe)
    for record in history:
        if record.state == "complete":
            assert cost(record.candidate, (128, 128)).macs <= 0.9 * cost(base, (128, 128)).macs  # type: ignore[arg-type]
    share = json.loads((run.directory / "limits.json").read_text())
    assert any(f"within the limits: {share['within'] / share['draws']:.0%}" in line for line in said)


RUNGS = ("search.rungs={first: 2, reduction: 2}", "search.proxy.train.steps=9", "search.controller.budget=7")


def staged(self: ShortTraining, candidate: Candidate, step: int | None) -> Score:
    """Every rung orders candidates as the end does; nothing is trained."""
    worth, steps = rng_for(0, "worth", candidate.digest).random(), step or 9
    return Score(value=worth, attributes={"steps": steps, "images": 4 * steps, "seconds": 0.1})


def test_rungs_from_recipe_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShortTraining, "_score", staged)
    monkeypatch.setattr(nas.methods.searching, "retrain_all", lambda *rest: None)
    free = "space.free=[permutation, connections, levels, types]"
    recipe = tiny(*RUNGS, free, "search.limits={macs: 0.9}", "search.controller={name: random, budget: 25}")
    check_recipe(recipe, source="tiny_spinenet.yaml")
    run = Run.create(tmp_path / "run", recipe)
    carry_out(run, Silent())
    found = histories(run)
    history = found["search"]
    stopped = [record for record in history if record.stopped_at is not None]
    rejected = [record for record in history if record.state == "pruned" and record.stopped_at is None]
    assert stopped and rejected
    assert all(set(record.intermediate) <= {2, 4, 8} for record in history)
    assert all("the limit is" in str(record.reason) and not record.intermediate for record in rejected)
    spent = {name: sum(expense(record, 9) for record in one) for name, one in found.items()}
    assert spent["search"] == sum(
        record.stopped_at or (9 if record.state == "complete" else 0) for record in history
    )
    assert spent["search"] <= spent["random"] < spent["search"] + 9, "equal training, not equal counts"
    shown = summary(run.directory)["trials"]
    assert [trial["state"] for trial in shown if trial["phase"] == "search"].count("pruned") == len(
        stopped
    ) + len(rejected)
    assert shown[stopped[0].number]["intermediate"] == {
        str(step): value for step, value in stopped[0].intermediate.items()
    }
    page = (run.directory / "report.html").read_text()
    assert "stopped on the way by a rung" in page and "rejected by a limit before anything ran" in page
    report = read_report(run.directory)
    assert {cost.name: cost.steps for cost in report.cost} == {
        "search: short trainings": spent["search"],
        "random: short trainings": spent["random"],
    }


def test_a_search_with_rungs_really_trains_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the value of a rung and its decision."""
    settings = (*RUNGS, "retrain=null", "search.controller.budget=3", "search.proxy.train.lr=0.02")
    whole = Run.create(tmp_path / "whole", tiny(*settings))
    monkeypatch.setattr(nas.methods.one_search, "finish", lambda *rest: None)
    carry_out(whole, Silent())
    original, reports = Phase.report, 0

    def stopping(self: Phase, *arguments: Any) -> Record:
        nonlocal reports
        record = original(self, *arguments)
        reports += 1
        if reports in (2, 4):
            raise KeyboardInterrupt
        return record

    monkeypatch.setattr(Phase, "report", stopping)
    run = Run.create(tmp_path / "run", tiny(*settings))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            carry_out(run, Silent())
    carry_out(run, Silent())

    def kept(run: Run) -> list[tuple[Any, ...]]:
        return [
            (record.number, record.digest, record.state, record.value, record.intermediate, record.reason)
            for record in histories(run)["search"]
        ]

    assert kept(run) == kept(whole) and len(kept(whole)) == 3
    assert reports == sum(len(one[4]) for one in kept(whole)), "no rung was measured twice"


def test_two_objectives_from_recipe_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the score grows with the cost, so that the front is long and the best is too dear."""

    def score(self: ShortTraining, candidate: Candidate) -> Score:
        assert isinstance(candidate, Architecture)
        noise = rng_for(0, "worth", candidate.digest).random()
        macs = cost(candidate, (128, 128)).macs
        return Score(value=20 * macs / base + noise, attributes={"steps": 6, "images": 24, "seconds": 0.1})

    monkeypatch.setattr(ShortTraining, "__call__", score)
    monkeypatch.setattr(nas.methods.searching, "retrain_all", lambda *rest: None)
    free = "space.free=[permutation, connections, levels, types]"
    recipe = tiny(
        free,
        "search.limits={}",
        "search.objectives=[AP, macs]",
        "search.controller={name: nsga2, budget: 24, options: {population_size: 6}}",
    )
    check_recipe(recipe, source="tiny_spinenet.yaml")
    whole = cost(baseline_of(recipe), (128, 128))
    base = round(0.93 * whole.macs)  # the baseline itself is dearer than nearly all of this space
    monkeypatch.setattr(nas.methods.one_search, "cost", lambda *rest: replace(whole, macs=base))
    run = Run.create(tmp_path / "run", recipe)
    winner = carry_out(run, Silent())
    history = histories(run)["search"]
    assert any(record.attributes["macs"] > base for record in history)  # type: ignore[operator]
    allowed = [record for record in history if record.attributes["macs"] <= base]  # type: ignore[operator]
    best = max(allowed, key=lambda record: record.value or 0.0)
    assert winner == best.candidate
    assert best.value != max(record.value for record in history if record.value is not None)
    shown = summary(run.directory)
    members = [history[number] for number in shown["front"]]
    assert len(members) > 2 and best in members
    assert shown["trials"][0]["macs"] == cost(history[0].candidate, (128, 128)).macs  # type: ignore[arg-type]
    assert shown["trials"][0]["params"] == cost(history[0].candidate, (128, 128)).params  # type: ignore[arg-type]
    page = (run.directory / "report.html").read_text()
    assert "Pareto front of the search" in page and all(record.digest in page for record in members)
    report = read_report(run.directory)
    assert report.cost_objective == "macs" and list(report.front) == shown["front"]
    study = optuna.load_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(run.directory / "study.log"))
        ),
    )
    assert study.best_value == max(record.value for record in history if record.value is not None)


def test_latency_as_limit_and_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the recipe to share, trials, winner and report; the clock is made up, so that the test knows it."""
    timed: list[str] = []

    def clock(self: LatencyRatio, architecture: Architecture) -> dict[str, Json]:
        timed.append(architecture.digest)
        ratio = round(0.6 + 0.8 * rng_for(0, "clock", architecture.digest).random(), 4)
        spread = [ratio, 2 * ratio, 3 * ratio]
        return {MEASURED: {"candidate": spread, "baseline": [1.0, 2.0, 3.0]}, LATENCY: ratio}

    def score(self: ShortTraining, candidate: Candidate) -> Score:
        return Score(value=10 * rng_for(0, "worth", candidate.digest).random())

    monkeypatch.setattr(ShortTraining, "__call__", score)
    monkeypatch.setattr(LatencyRatio, "__call__", clock)
    monkeypatch.setattr(nas.methods.searching, "retrain_all", lambda *rest: None)
    recipe = tiny(
        "search.limits={macs: 1.2, latency: 1.2}",
        "search.objectives=[AP, latency]",
        "search.controller={name: random, budget: 25}",
    )
    check_recipe(recipe, source="tiny_spinenet.yaml")
    run, said = Run.create(tmp_path / "run", recipe), []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    winner = carry_out(run, Listener())
    share = json.loads((run.directory / "limits.json").read_text())
    assert len(share["measured"]) == 10
    assert share["latency_within"] == sum(one[LATENCY] <= 1.2 for one in share["measured"].values())
    assert any(
        f"of 10 of these that were timed {share['latency_within']} are within" in line for line in said
    )
    assert len(timed) == len(set(timed)), "no network is timed twice in a run"
    history = histories(run)["search"]
    slow = [record for record in history if record.state == "pruned"]
    assert slow and all(str(record.reason).startswith("latency: ") for record in slow)
    assert {record.digest for record in slow} == {
        record.digest
        for record in history
        if record.attributes[LATENCY] > 1.2  # type: ignore[operator]
    }
    fair = [r for r in history if r.value is not None and r.attributes[LATENCY] <= 1.0]  # type: ignore[operator]
    assert winner == max(fair, key=lambda record: record.value or 0.0).candidate
    shown = summary(run.directory)
    assert shown["front"] and shown["trials"][0]["latency"] == history[0].attributes[LATENCY]
    page = (run.directory / "report.html").read_text()
    assert "the front in ap and latency in the baseline" in page.lower()


def test_dead_blocks_can_be_a_limit() -> None:
    recipe = tiny("space.dead=limit", "space.free=[permutation, connections, levels, types]")
    space = spinenet_space(recipe.space)
    limits = Limits(space, LimitsRecipe(), (128, 128))
    assert limits.any and str(limits) == "no dead block"
    sentences = {limits(space.sample(rng_for(0, "draw", index))) for index in range(40)}
    assert None in sentences and any(text and text.startswith("dead: nothing reads") for text in sentences)


def test_the_proxy_network_is_narrower_and_has_the_same_graph() -> None:
    recipe = spinenet_recipe(tiny("search.proxy.alpha=1.0"))
    base = baseline_of(recipe)
    narrow = narrowed(base, recipe.search.proxy)
    assert narrow.genes == base.genes
    assert narrow.settings["filter_size_scale"] == 0.0625 and narrow.settings["alpha"] == 1.0
    assert cost(narrow, (128, 128)).macs < cost(base, (128, 128)).macs


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("space.baseline=resnet18", "space.baseline: found 'resnet18' of the family crnas.resnet"),
        ("space.baseline=spinenet50", "did you mean"),
        ("space.free=[]", "nothing is free"),
        ("space.window=1", "window"),
        ("search.controller.name=aging", "search.controller.name: found 'aging'"),
        ("search.proxy.alpha=0.01", "search.proxy: settings.alpha: found 0.01"),
        ("search.limits.macs=0", "search.limits.macs: found 0.0; allowed is above 0"),
        ("search.limits.latency=-1", "search.limits.latency: found -1"),
        ("search.rungs.first=6", "search.rungs.first: found 6; allowed is a step before the end"),
        ("search.rungs={first: 2, pruner: mean}", "search.rungs.pruner: found 'mean'"),
        ("search.rungs={first: 2, options: {min_resource: 1}}", "search.rungs.options.min_resource"),
        ("search.rungs={steps: [2]}", "search.rungs.steps: found [2]; successive_halving has its own row"),
        (
            "search.objectives=[macs, AP]",
            "search.objectives: found ['macs', 'AP']; allowed is [AP], or AP and",
        ),
        ("search.objectives=[AP, macs, params]", "search.objectives: found"),
        ("search.objectives=[AP, flops]", "search.objectives.1"),
        ("detector.levels=[p2]", "detector.levels"),
        ("detector.fpn_channels=32", "detector.fpn_channels: found 32"),
        ("retrain.rivals=[stages]", "retrain.rivals: found"),
        ("space.fre=[levels]", "did you mean 'space.free'"),
    ],
)
def test_mistakes_are_found_at_the_door(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(tiny(override), source="tiny_spinenet.yaml")
    assert words in str(caught.value), caught.value


def test_rungs_need_rounds() -> None:
    with pytest.raises(ConfigError, match=r"order: found 'free'; allowed with search\.rungs is rounds"):
        tiny("search.rungs.first=2", "order=free")


def test_a_free_search_is_derived_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny("order=free", "engine=processes", "workers=2", "retrain=null"))
    carry_out(run, Silent())
    history = histories(run)["search"]
    assert [one.beside for one in history[:4]] == [(), (0,), (0, 1), (0, 1, 2)]
    assert len(history[4].beside or ()) == 3, "one has ended"
    assert [one.difference for one in replay_run(run)] == [None]


def test_the_catalog_finds_the_procedure() -> None:
    assert procedure(tiny()) is nas.methods.spinenet
    check_recipe(tiny(), source="tiny_spinenet.yaml")


def test_ablations_stand_beside_the_winner(tmp_path: Path) -> None:
    recipe = tiny(
        "retrain.rivals=[]",
        "retrain.rival_seeds=1",
        "retrain.hand_made=[]",
        "search.controller={name: random, budget: 2}",
        "ablations={damages: [drop_long_range, chain], orders: [fish], controller: {name: random, budget: 2}}",
    )
    run = Run.create(tmp_path / "run", recipe)
    carry_out(run, Silent())
    report = read_report(run.directory)
    assert list(report.ablations) == ["drop_long_range", "chain", "fish"]
    assert all([result.seed for result in one.results] == [1000] for one in report.ablations.values())
    base = baseline_of(recipe)
    parents = report.ablations["chain"].architecture.genes["parents"]
    assert isinstance(parents, tuple) and all(isinstance(one, tuple) and len(one) == 1 for one in parents)
    assert report.ablations["drop_long_range"].macs < cost(base, (128, 128)).macs
    history = histories(run)["fish"]
    assert len(history) == 2
    for record in history:
        assert isinstance(record.candidate, Architecture)
        levels = record.candidate.genes["levels"]
        assert isinstance(levels, tuple) and sorted(levels) == sorted(FISH), "the blocks stay what they are"
    best = max(history, key=lambda record: record.value or 0.0)
    assert report.ablations["fish"].architecture == best.candidate
    assert summary(run.directory)["best"] == max(record.value or 0.0 for record in histories(run)["search"])
    page = (run.directory / "report.html").read_text()
    assert "drop long range" in page and 'id="ablations"' in page
    trained = {path.parent.parent.name for path in run.directory.glob("retrain/*/*/result.json")}
    assert len(trained) == 5, "winner, baseline, two damages, one order"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablations={orders: [fish]}", "ablations.controller: found None; allowed is a controller where"),
        (
            "ablations={damages: [chain], controller: {name: random, budget: 1}}",
            "and null where there are none",
        ),
        ("ablations={damages: [fork]}", "ablations.damages"),
        ("retrain.train.drop_path=0.1", "retrain.hand_made.0.*ResNet has no stochastic depth"),
        (
            "ablations={orders: [fish], controller: {name: random}}",
            "ablations.controller.budget: random needs the number of trials",
        ),
    ],
)
def test_mistakes_in_ablations_are_found_at_the_door(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_recipe(tiny(override), source="tiny")


def test_an_order_outside_of_the_limits_is_left_out_and_the_run_ends(tmp_path: Path) -> None:
    recipe = tiny(
        "retrain.rivals=[]",
        "retrain.hand_made=[]",
        "search.controller={name: random, budget: 1}",
        "ablations={orders: [fish], controller: {name: random, budget: 2}}",
    )
    run = Run.create(tmp_path / "run", recipe)
    said: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    whole = Limits.__call__

    def no_fish(self: Limits, one: Architecture) -> str | None:
        levels = one.genes["levels"]
        assert isinstance(levels, tuple)
        return "a fish" if sorted(levels) == sorted(FISH) and levels[-5:] == FISH[-5:] else whole(self, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Limits, "__call__", no_fish)
        carry_out(run, Listener())
    assert any(line.startswith("warning: fish is missing from the ablations") for line in said)
    assert summary(run.directory)["state"] == "complete" and not read_report(run.directory).ablations


def test_a_rival_cannot_take_an_ablations_name() -> None:
    with pytest.raises(ConfigError, match=r"retrain\.hand_made: found 'chain'"):
        tiny(
            "ablations={damages: [chain]}",
            "retrain.hand_made=[{name: chain, space: {network: resnet18}}]",
        )


def test_a_report_before_the_data_is_opened(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny())
    assert collect(run).baseline.detector_macs is None
