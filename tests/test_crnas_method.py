"""CR-NAS carried out whole on the tiny recipe: what is written, in which order, and on which images."""

import json
import runpy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import nas.methods.data
import nas.methods.reporting
import nas.training
from nas.config import apply_overrides, check, read_yaml
from nas.methods.crnas import carry_out, check_recipe
from nas.methods.reporting import collect
from nas.methods.retraining import failures_of, results_of, retrain_all
from nas.methods.searching import expected_trials
from nas.methods.spaces import allocation, dilation_space, stage_space
from nas.progress import Silent
from nas.proxies.supernet import SupernetProxy
from nas.recipes.controller import ControllerRecipe
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run
from nas.show import histories, summary
from nas.study import Score
from nas.training import TrainingJob, train_to_completion
from nas.trials import AP_BY_SUPERNET
from search_spaces.architecture import Architecture, Candidate, Prefix
from search_spaces.catalog import family_of
from search_spaces.errors import (
    CandidateFailed,
    ConfigError,
    DataError,
    NonFiniteDetection,
    NonFiniteLoss,
    RunError,
)
from trainers.data.catalog import open_split
from trainers.loop import Trainer

TINY = Path(__file__).parent / "recipes/tiny.yaml"


def tiny(*overrides: str) -> CRNASRecipe:
    return check(CRNASRecipe, apply_overrides(read_yaml(TINY), overrides), source=str(TINY))


class Listener(Silent):
    """Keeps the states that ``nas show`` would name at each new phase."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.states: list[str] = []

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        state = summary(self.run.directory)["state"]
        if self.states[-1:] != [state]:
            self.states.append(state)


@dataclass(frozen=True, kw_only=True)
class Finished:
    run: Run
    winner: Architecture
    events: list[str]
    states: list[str]


def watch(patch: pytest.MonkeyPatch) -> list[str]:
    """Log opened splits, scored candidates, steps and trainings of whatever runs next."""
    events: list[str] = []

    def opened(recipe: Any, split: str, **_: object) -> Any:
        events.append(f"open {split}")
        return open_split(recipe, split)

    for module in (nas.methods.data, nas.training, nas.methods.reporting):
        patch.setattr(module, "open_split", opened)
    score, advance = SupernetProxy.__call__, Trainer._advance

    def scored(self: SupernetProxy, candidate: Candidate) -> Score:
        events.append(f"score {self.directory.name} {candidate.digest}")
        return score(self, candidate)

    def advanced(self: Trainer) -> None:
        events.append("step")
        advance(self)

    def trained(job: TrainingJob, *rest: Any) -> dict[str, Any]:
        events.append(f"train {job.directory.name}")
        return train_to_completion(job, *rest)

    patch.setattr(SupernetProxy, "__call__", scored)
    patch.setattr(Trainer, "_advance", advanced)
    patch.setattr(nas.methods.retraining, "train_to_completion", trained)
    return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    recipe = tiny("retrain.rivals=[stages, random]", "stages.supernet.sharing=prefix")
    run = Run.create(tmp_path_factory.mktemp("runs") / "tiny", recipe)
    listener = Listener(run)
    with pytest.MonkeyPatch.context() as patch:
        events = watch(patch)
        winner = carry_out(run, listener)
    return Finished(run=run, winner=winner, events=events, states=listener.states)


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_find_what_this_process_finds(finished: Finished, tmp_path: Path, engine: str) -> None:
    recipe = tiny(
        f"engine={engine}",
        "workers=2",
        "stages.supernet.sharing=prefix",
        "stages.supernet.members=2",
        "dilations.supernet.members=2",
        "dilations.supernet.inherit=true",
        "retrain=null",
    )
    serial = Run.create(tmp_path / "serial", replace(recipe, engine="serial"))
    together = Run.create(tmp_path / "together", recipe)
    assert carry_out(serial, Silent()) == carry_out(together, Silent())
    found, expected = histories(together), histories(serial)
    assert list(found) == ["stages", "dilations"] and len(found["dilations"]) > 20
    for phase in found:
        rows = [[(one.digest, one.value) for one in history[phase]] for history in (found, expected)]
        assert rows[0] == rows[1]
    # The first of several supernets is that of a search with one.
    before = histories(finished.run)["stages"]
    first = [one.attributes[AP_BY_SUPERNET][0] for one in found["stages"]]  # type: ignore[index, call-overload]
    assert first == pytest.approx([one.value for one in before], abs=1e-6)


def test_everything_promised_is_written(finished: Finished) -> None:
    directory = finished.run.directory
    for name in (
        "recipe.yaml",
        "study.log",
        "data.json",
        "environment.json",
        "winner.yaml",
        "report.html",
        "report.json",
        "done.json",
        "stages/checkpoint.pt",
        "stages/metrics.jsonl",
        "dilations/spent.json",
    ):
        assert (directory / name).stat().st_size > 0, name
    assert (directory / "bundle/architecture.json").exists()
    page = (directory / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert not list(directory.rglob("*.tmp")), "no half-written file is left"


def test_states_in_order(finished: Finished) -> None:
    assert finished.states == ["stages", "dilations", "random", "retraining"]
    assert summary(finished.run.directory)["state"] == "complete"
    page = finished.run.directory / "report.html"
    page.rename(page.with_suffix(".aside"))
    try:
        assert summary(finished.run.directory)["state"] == "reporting"
    finally:
        page.with_suffix(".aside").rename(page)


def test_show_names_every_trial_and_the_winner(finished: Finished) -> None:
    shown = summary(finished.run.directory)
    assert [trial["phase"] for trial in shown["trials"]] == ["stages"] * 6 + ["dilations"] * 24 + [
        "random"
    ] * 24
    for phase in ("stages", "dilations", "random"):
        own = [trial for trial in shown["trials"] if trial["phase"] == phase]
        assert [trial["number"] for trial in own] == list(range(len(own)))
        assert {trial["state"] for trial in own} == {"complete"}
        assert len({trial["digest"] for trial in own}) == len(own)
    whole = [trial for trial in shown["trials"] if trial["phase"] == "dilations"][-3:]
    best = max(whole, key=lambda trial: trial["value"])
    assert shown["winner"]["digest"] == best["digest"] == finished.winner.digest
    assert shown["best"] == best["value"], "a prefix's score is nobody's best"
    assert shown["cost"]["stages_candidates"] == 6 and shown["cost"]["stages_supernet_images"] == 48
    ledger = shown["ledger"]["trials"]
    scored = [one for one in shown["ledger"]["phases"] if one["name"].endswith("scoring")]
    assert ledger["complete"]["images"] == sum(one["images"] for one in scored) > 0
    assert ledger["complete"]["macs"] == sum(one["macs"] for one in scored)
    facts = finished.run.read_json("data.json")
    for phase in ("stages", "dilations", "random"):
        # Two mini-batches of four images set the statistics anew before the held-out images are looked at.
        seen = {trial["images_seen"] for trial in shown["trials"] if trial["phase"] == phase}
        assert seen == {len(facts["held_out"]) + 2 * 4}
    whole = [trial for trial in shown["trials"] if trial["macs"] is not None]
    spent = [one["macs_spent"] / (one["images_seen"] * one["macs"]) for one in whole]
    assert len(whole) >= 6 and max(spent) == 1.0, "the first of them shares nothing"
    assert 0.0 <= min(spent) < 0.9, "what candidates begin with is computed once"
    prefixes = [trial for trial in shown["trials"] if trial["macs"] is None]
    assert all(trial["macs_spent"] for trial in prefixes), "those of a prefix are of its completions"
    networks = {finished.winner.digest, *(rival.digest for rival in finished.run.read_rivals().values())}
    assert shown["cost"]["retraining_runs"] == len(networks)


def test_winner_is_complete_and_of_equal_cost(finished: Finished) -> None:
    winner, baseline = finished.winner, stage_space(finished.run.recipe.space).baseline
    assert isinstance(winner, Architecture)
    family_of(winner).validate(winner)
    blocks, dilations = winner.genes["blocks"], winner.genes["dilations"]
    assert isinstance(blocks, tuple) and isinstance(dilations, tuple)
    assert sum(blocks) == len(dilations) == 8  # type: ignore[arg-type]
    record = yaml.safe_load((finished.run.directory / "winner.yaml").read_text())
    assert Architecture.from_dict(record["architecture"]) == winner == finished.run.read_winner()
    assert Architecture.from_dict(record["others"]["baseline"]) == baseline
    assert set(record["others"]) == {"baseline", "stages", "random"}


def test_the_random_rival_has_the_budget_of_the_greedy_search(finished: Finished) -> None:
    trials = histories(finished.run)
    assert len(trials["random"]) == len(trials["dilations"]) == 24
    best = max(trials["random"], key=lambda record: (record.value or 0.0, -record.number))
    assert finished.run.read_rivals()["random"] == best.candidate


def test_held_out_images_are_listed_and_in_no_training(finished: Finished) -> None:
    facts = finished.run.read_json("data.json")
    assert facts is not None
    train, held_out = set(facts["train"]), set(facts["held_out"])
    assert len(held_out) == 6 and len(train) == 18 and not train & held_out
    everything = open_split(finished.run.recipe.data, "train")
    val = open_split(finished.run.recipe.data, "val")
    assert train | held_out == set(everything.file_names)
    assert not set(val.file_names) & (train | held_out)


def test_val_is_opened_for_the_final_table_only(finished: Finished) -> None:
    first_val = finished.events.index("open val")
    search = finished.events[:first_val]
    assert search.count("open train") >= 1
    assert sum(event.startswith("score") for event in search) == 6 + 24 + 24
    assert "train seed-1000" in search, "what opens val is a training of the final table"
    assert not any(event.startswith("score") for event in finished.events[first_val:])


def test_a_finished_run_does_nothing_again(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = finished.run.directory
    # The bundle's card says what the run has cost by now, and bundle.json has the digest of the card.
    anew = ("report.html", "report.json", "study.owner", "README.md", "bundle.json")
    kept = {
        path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name not in anew
    }
    events = watch(monkeypatch)
    assert carry_out(Run.open(directory), Silent()) == finished.winner
    assert not [event for event in events if event.startswith(("score", "step", "train"))]
    assert {path: path.read_bytes() for path in kept} == kept


def test_every_network_of_the_table_was_trained_equally_long(finished: Finished) -> None:
    run = finished.run
    networks = {finished.winner.digest, *(rival.digest for rival in run.read_rivals().values())}
    assert {path.name for path in (run.directory / "retrain").iterdir()} == networks
    for digest in networks:
        directory = run.directory / "retrain" / digest / "seed-1000"
        result = run.read_json(f"retrain/{digest}/seed-1000/result.json")
        assert result is not None
        assert result["images"] == 12 * 4 and result["digest"] == digest
        assert result["environment"]["threads"] == 1 and result["environment"]["seed"] == 1000
        assert set(result["environment"]["versions"]) >= {"torch", "python", "vertebra"}
        assert result["curve"][-1]["AP"] == result["metrics"]["AP"]
        assert load_file(directory / "detector.safetensors")
    assert run.read_json("retrain/x/result.json") is None


def test_the_bundle_is_the_trained_winner(finished: Finished) -> None:
    directory = finished.run.directory
    weights = load_file(directory / "bundle/weights.safetensors")
    trained = load_file(directory / "retrain" / finished.winner.digest / "seed-1000" / "detector.safetensors")
    own = {name: value for name, value in trained.items() if name.startswith("backbone.body.")}
    assert len(own) == len(weights)
    for name, value in weights.items():
        assert torch.equal(own["backbone.body." + name], value), name


def test_another_recipe_in_the_same_directory_is_refused(finished: Finished) -> None:
    with pytest.raises(RunError, match=r"another recipe.*nas resume"):
        Run.create(finished.run.directory, replace(finished.run.recipe, seed=4))
    assert Run.create(finished.run.directory, finished.run.recipe) == finished.run


def test_check_recipe_finds_what_would_stop_the_run_later(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(
            tiny(
                "device=gpu",
                "storage=nosuch://me:secret@host/db",
                "stages.controller.name=exhaustve",
                "dilations.controller.options={beem: 2}",
                "detector.levels=[c9]",
                "data.source=coco",
            ),
            source="r.yaml",
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines[:6]] == [
        ["r.yaml", "device"],
        ["r.yaml", "storage"],
        ["r.yaml", "stages.controller.name"],
        ["r.yaml", "dilations.controller.options.beem"],
        ["r.yaml", "detector.levels"],
        ["r.yaml", "data.root"],
    ]
    assert "secret" not in str(caught.value)
    assert "did you mean 'exhaustive'" in lines[2] and "did you mean 'beam'" in lines[3]
    for overrides, words in (
        (["space.widths=[8, 8]"], "four widths"),
        (["space.budget=7"], "baseline"),
        (["space.budget=40"], "space"),
        (["space.branches=[[1], [1], [2]]"], "branches"),
        (["detector.levels=[c3, c9]"], "c9"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_recipe(tiny(*overrides), source="r.yaml")
    with pytest.raises(DataError, match="annotations"):
        check_recipe(tiny("data.source=coco"), source="r.yaml")
    check_recipe(tiny(), source="r.yaml")


def test_expected_trials() -> None:
    space = stage_space(tiny().space)
    eight = dilation_space(space.baseline)
    assert expected_trials(ControllerRecipe(name="exhaustive"), space) == 6
    assert expected_trials(ControllerRecipe(name="random", budget=5), space) == 5
    assert expected_trials(ControllerRecipe(name="greedy"), eight) == 3 + 9 * 7
    assert expected_trials(ControllerRecipe(name="greedy", options={"beam": 1}), eight) == 24


def test_prefixes_are_marked_and_never_win(finished: Finished) -> None:
    history = histories(finished.run)["dilations"]
    assert [isinstance(record.candidate, Prefix) for record in history] == [True] * 21 + [False] * 3
    assert finished.winner.digest in {record.digest for record in history[21:]}


def test_a_dilation_supernet_may_begin_where_the_stage_supernet_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(Exception):
        """Stops the run at the first step of the dilation supernet."""

    seen: dict[str, dict[str, torch.Tensor]] = {}

    def prepare(self: SupernetProxy, *rest: Any) -> None:
        if self.directory.name == "dilations":
            seen["dilations"] = self.detector.state_dict()
            seen["path"] = self.supernet.slice(self.space.baseline)
            raise Begun
        trained(self, *rest)
        seen["stages"] = {name: value.clone() for name, value in self.detector.state_dict().items()}
        seen["supernet"] = self.supernet.state_dict()

    trained = SupernetProxy.prepare
    monkeypatch.setattr(SupernetProxy, "prepare", prepare)
    run = Run.create(
        tmp_path / "run", tiny("dilations.supernet.inherit=true", "stages.supernet.sharing=prefix")
    )
    with pytest.raises(Begun):
        carry_out(run, Silent())
    around = [name for name in seen["dilations"] if not name.startswith("backbone.body.")]
    assert around and all(torch.equal(seen["dilations"][name], seen["stages"][name]) for name in around)
    # A prefix-shared chain has the winner's blocks under the stand-alone network's numbers.
    stem = [name for name in seen["path"] if name.startswith(("conv1", "bn1"))]
    assert stem
    first = seen["path"]["layer1.0.conv1.weight"]
    assert any(torch.equal(first, value) for value in seen["supernet"].values() if value.shape == first.shape)


def test_the_first_supernet_has_nothing_to_inherit() -> None:
    with pytest.raises(ConfigError, match=r"stages\.supernet\.inherit"):
        tiny("stages.supernet.inherit=true")


@pytest.mark.parametrize("kind", [NonFiniteLoss, NonFiniteDetection])
def test_a_diverged_training_is_a_line_of_the_report_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CandidateFailed]
) -> None:
    run = Run.create(tmp_path / "run", tiny("dilations=null", "retrain.seeds=2", "retrain.rivals=[]"))
    attempts: list[int] = []

    def trained(job: TrainingJob, *rest: Any) -> dict[str, Any]:
        attempts.append(job.recipe.seed)
        if job.recipe.seed == first and job.architecture != baseline:
            raise kind("step 3 of 8: loss is nan")
        return train_to_completion(job, *rest)

    monkeypatch.setattr(nas.methods.retraining, "train_to_completion", trained)
    assert run.recipe.retrain is not None
    first, baseline = run.recipe.retrain.first_seed, stage_space(run.recipe.space).baseline
    winner = allocation(baseline, (1, 2, 3, 2))
    for _ in range(2):
        retrain_all(run, winner, {}, Silent())
    assert attempts == [first, first, first + 1, first + 1], "a training that diverged is not tried again"
    assert [failure["seed"] for failure in failures_of(run, winner)] == [first]
    assert [result["seed"] for result in results_of(run, winner)] == [first + 1]
    assert [result["seed"] for result in results_of(run, baseline)] == [first, first + 1]
    run.write_winner(winner, {}, baseline)
    notes = collect(run).notes
    assert any(f"seed {first}, diverged" in note and "loss is nan" in note for note in notes)


def test_candidates_are_scored_as_by_the_straightforward_procedure(
    finished: Finished, tmp_path: Path
) -> None:
    """To the digit, whatever they share: allocations, prefixes and whole lists of dilations."""
    benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/search_cost.py"))
    run, cost = str(finished.run.directory), tmp_path / "cost.json"
    benchmark["main"]([run, "--short", run, "--to", str(cost), "--steps", "1"])
    found = json.loads(cost.read_text(encoding="utf-8"))
    assert found["different_scores"] == {"stages": [], "dilations": []} and found["differs"] == []
    for phase in found["phases"].values():
        assert phase["timed"] >= 6 and phase["steps"]["now"] == phase["steps"]["short"]
    seconds = found["seconds"]
    assert seconds["short"]["search"] > seconds["short"]["evaluation"] > 0
    assert found["search_speedup"] == pytest.approx(
        seconds["straightforward"]["search"] / seconds["short"]["search"], rel=0.2
    )
