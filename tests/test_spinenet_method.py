"""SpineNet carried out whole on the tiny recipe: limits before cost, equal trials after a stop, an export."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nas.methods.spinenet
from nas.config import apply_overrides, read_yaml
from nas.export.bundle import load_bundle
from nas.methods.catalog import baseline_of, check_search, procedure
from nas.methods.spinenet import carry_out, check_recipe
from nas.methods.spinenet_space import Limits, narrowed, spinenet_recipe, spinenet_space
from nas.progress import Silent
from nas.proxies.short_training import ShortTraining
from nas.recipe import LimitsRecipe, SpineNetRecipe
from nas.run import Run
from nas.show import histories, summary
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.errors import ConfigError
from search_spaces.families import family_of
from search_spaces.randomness import rng_for

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

    monkeypatch.setattr(nas.methods.spinenet, "finish", lambda *rest: None)
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


def test_the_catalog_finds_the_procedure() -> None:
    assert procedure(tiny()) is nas.methods.spinenet
    check_recipe(tiny(), source="tiny_spinenet.yaml")
