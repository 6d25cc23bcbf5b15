"""Several supernets as one proxy: their mean, trained and resumed one by one, shipped to workers, booked as many."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from nas.agreement import agreement, agreements
from nas.config import apply_overrides, check, read_yaml
from nas.methods.catalog import procedure
from nas.methods.costs import phase_costs
from nas.methods.crnas import carry_out, scorer, worker_files
from nas.methods.crnas_supernets import dilation_proxy, stage_proxy, together
from nas.methods.data import SearchData, read_data, shared_out
from nas.methods.reporting import collect
from nas.methods.spaces import dilation_space, stage_space
from nas.planning import Work
from nas.progress import Silent
from nas.proxies.ensemble import SupernetEnsemble
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run
from nas.show import histories, summary
from nas.trials import AP_BY_SUPERNET, NASWOT, Record
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError, DataError, RunError

TINY = Path(__file__).parent / "recipes/tiny.yaml"
TWO = ("stages.supernet.members=2", "dilations.supernet.members=2", "dilations.supernet.inherit=true")
THREE = ("stages.supernet.members=2", "dilations.supernet.members=3")


def tiny(*overrides: str) -> CRNASRecipe:
    return check(
        CRNASRecipe, apply_overrides(read_yaml(TINY), ["retrain=null", *overrides]), source=str(TINY)
    )


def rows(run: Run) -> dict[str, list[tuple[str, float | None]]]:
    return {name: [(one.digest, one.value) for one in history] for name, history in histories(run).items()}


def by_supernet(record: Record) -> list[float]:
    found = record.attributes[AP_BY_SUPERNET]
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(tmp_path_factory.mktemp("runs") / "two", tiny(*THREE, "stages.choose_by=mean_rank"))
    carry_out(run, Silent())
    return run


def test_a_score_is_the_mean_over_supernets_and_each_is_written_down(finished: Run) -> None:
    trials = histories(finished)
    assert len(trials["stages"]) == 6 and len(trials["dilations"]) == 24
    for name, count in (("stages", 2), ("dilations", 3)):
        for record in trials[name]:
            each = by_supernet(record)
            assert len(each) == count and record.value == pytest.approx(fmean(each), abs=1e-6)
        assert any(len(set(by_supernet(record))) == count for record in trials[name]), (
            "they are not one supernet"
        )
    assert all(NASWOT in one.attributes for one in trials["stages"])


def test_the_first_supernet_is_that_of_a_search_with_one(finished: Run, tmp_path: Path) -> None:
    single = Run.create(tmp_path / "one", tiny("dilations=null"))
    carry_out(single, Silent())
    expected = {one.digest: one.value for one in histories(single)["stages"]}
    found = {one.digest: by_supernet(one)[0] for one in histories(finished)["stages"]}
    assert found == pytest.approx(expected, abs=1e-6)


def test_members_say_what_they_say_alone(finished: Run) -> None:
    data = read_data(finished.recipe)
    whole = scorer(finished, data, "stages")
    assert isinstance(whole, SupernetEnsemble)
    record = histories(finished)["stages"][3]
    again = whole(record.candidate)
    assert again.value == record.value
    for number, one in enumerate(by_supernet(record)):
        member = stage_proxy(finished, data, number)
        member.load()
        assert member(record.candidate).value == pytest.approx(one, abs=1e-6)
    assert again.attributes["detections"] == fmean(
        float(str(one(record.candidate).attributes["detections"])) for one in whole.members
    )


def test_every_supernet_holds_out_other_images(finished: Run) -> None:
    data = read_data(finished.recipe)
    every = {*data.train_set.image_ids, *data.held_out.image_ids}
    facts = finished.read_json("dilations/allocation.json")
    assert facts is not None
    allocation = dilation_space(Architecture.from_dict(facts["architecture"]))
    members = [stage_proxy(finished, data, one) for one in range(2)]
    members += [dilation_proxy(finished, allocation, data, trained=True, member=one) for one in range(3)]
    held = [set(one.held_out.image_ids) for one in members]
    for proxy, mine in zip(members, held, strict=True):
        assert mine | set(proxy.train_set.image_ids) == every and not mine & set(proxy.train_set.image_ids)
        assert len(mine) == len(data.held_out)
    assert held[0] == held[2] == set(data.held_out.image_ids)
    assert held[1] == held[3], "those that the weights of its number have not learned from"
    assert not held[0] & held[1] and not held[4] & (held[0] | held[1])
    listed = finished.read_json("stages/supernet_2/held_out.json")
    assert listed is not None and listed["held_out"] == list(members[1].held_out.file_names)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_no_image_is_held_out_twice_while_others_are_left(share: float) -> None:
    whole = read_data(tiny(f"data.hold_out={share}"))
    count, total = len(whole.held_out), len(whole.held_out) + len(whole.train_set)
    held = Counter[int]()
    for member in range(4):
        found = shared_out(whole, member, 5)
        assert len(found.held_out) == count and len(found.train_set) == total - count
        held.update(found.held_out.image_ids)
        assert max(held.values()) == -(-(member + 1) * count // total)
        again = shared_out(whole, member, 5)
        assert again.held_out.image_ids == found.held_out.image_ids
        # Pictures, boxes and ground truth are those of the images, as they lie in the parts of the search.
        for place, image in enumerate(found.held_out.image_ids):
            part = whole.held_out if image in whole.held_out.image_ids else whole.train_set
            where = part.image_ids.index(image)
            assert torch.equal(found.held_out.images[place], part.images[where])
            assert torch.equal(found.held_out.targets[place]["boxes"], part.targets[where]["boxes"])
            assert found.held_out.file_names[place] == part.file_names[where]
        truth = found.held_out.ground_truth
        assert {one["id"] for one in truth["images"]} == set(found.held_out.image_ids)
        assert {one["image_id"] for one in truth["annotations"]} <= set(found.held_out.image_ids)


def test_parts_without_an_object_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emptied(recipe: Any, say: Any = None) -> SearchData:
        data = read_data(recipe, say)
        rest = data.train_set
        empty = [{**one, "boxes": one["boxes"][:0], "labels": one["labels"][:0]} for one in rest.targets]
        return replace(data, train_set=replace(rest, targets=tuple(empty)))

    monkeypatch.setattr("nas.methods.data.read_data", emptied)
    run = Run.create(tmp_path / "run", tiny("stages.supernet.members=2"))
    with pytest.raises(DataError, match="supernet 2: no object in the images that it holds out"):
        carry_out(run, Silent())
    assert not (run.directory / "stages").exists()


def test_inherited_weights_are_those_of_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    prepare = SupernetProxy.prepare

    def noted(self: SupernetProxy, *rest: Any) -> None:
        prepared.append(str(self.directory.relative_to(tmp_path)))
        prepare(self, *rest)

    monkeypatch.setattr(SupernetProxy, "prepare", noted)
    carry_out(Run.create(tmp_path / "run", tiny(*TWO)), Silent())
    stages, dilations = ["run/stages", "run/stages/supernet_2"], ["run/dilations", "run/dilations/supernet_2"]
    assert prepared == [*stages, *stages, *dilations]
    with pytest.raises(
        ConfigError, match=r"dilations\.supernet\.members: found 3; allowed with inherit is up to 2"
    ):
        tiny(*THREE, "dilations.supernet.inherit=true")


def test_workers_read_all_of_them(finished: Run) -> None:
    """Processes and Ray find the same with them: tests/test_crnas_method.py."""
    for phase, count in (("stages", 2), ("dilations", 4), ("random", 4)):
        files = worker_files(finished, phase)
        assert len(files) == count and all(one.exists() for one in files)
    record = histories(finished)["dilations"][7]
    assert scorer(finished, read_data(finished.recipe), "dilations")(record.candidate).value == record.value


def test_a_stop_between_two_supernets_costs_neither(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    steps: list[str] = []

    class Stopping(Silent):
        def __init__(self, at: int | None) -> None:
            self.at = at

        def advance(self, done: int, note: str = "") -> None:
            if note.startswith("supernet"):
                steps.append(f"{done} {note.split(',')[0]}")
            if done == self.at:
                raise Stopped

    run = Run.create(tmp_path / "stopped", finished.recipe)
    with pytest.raises(Stopped):
        carry_out(run, Stopping(17))
    assert steps[0] == "1 supernet 1 of 2" and steps[-1] == "17 supernet 2 of 2"
    proxy = together([stage_proxy(run, read_data(run.recipe), one) for one in range(2)])
    with pytest.raises(RunError, match=r"stages/supernet_2/checkpoint.pt: .* 3 of 12 steps"):
        proxy.load()
    steps.clear()
    carry_out(run, Stopping(None))
    assert steps[0] == "16 supernet 2 of 2", "it goes on from the checkpoint of the second"
    assert rows(run) == rows(finished)


def test_what_they_cost_is_booked_and_planned(finished: Run, tmp_path: Path) -> None:
    facts, trials = finished.read_json("data.json"), histories(finished)
    assert facts is not None
    one = len(facts["held_out"]) + 2 * 4
    assert {record.images_seen for record in trials["dilations"]} == {3 * one}
    # NASWOT looks at the images once, however many supernets there are.
    free = {record.images_seen - 2 * one for record in trials["stages"]}
    assert len(free) == 1 and 0 < free.pop() <= 64
    shown = summary(finished.directory)
    assert shown["cost"]["stages_supernet_images"] == 2 * 12 * 4
    assert shown["cost"]["dilations_supernet_images"] == 3 * 8 * 4
    counted = {one.name: one.images for one in phase_costs(finished, trials, (64, 64))}
    assert counted["dilations: supernet training"] == 3 * 8 * 4

    single = Run.create(tmp_path / "one", tiny())
    works = []
    for run in (single, Run.create(tmp_path / "more", tiny(*THREE))):
        data = read_data(run.recipe)
        works.append([one for one in procedure(run.recipe).foreseen(run, data) if isinstance(one, Work)])
    for plain, several in zip(*works, strict=True):
        times = 2 if plain.name.startswith("stages") else 3
        if plain.unit == "steps":
            assert several.count == times * plain.count and several.macs == plain.macs
        else:
            assert several.count == plain.count and several.macs == pytest.approx(times * plain.macs)


def test_a_race_has_one_supernet() -> None:
    with pytest.raises(
        ConfigError, match=r"stages\.supernet\.members: found 2; allowed with stages\.race is 1"
    ):
        tiny("stages.supernet.members=2", "stages.race={first: 4}", "stages.controller.name=random")
    with pytest.raises(ConfigError, match=r"dilations\.supernet\.members: found 0; allowed is at least 1"):
        tiny("dilations.supernet.members=0")


def history(*supernets: list[float]) -> list[Record]:
    """Trials of so many networks, scored by these supernets."""
    networks = islice(
        stage_space(tiny("space.branches=[[1,2,3],[1,2,3],[1,2,3],[1,2,3]]").space).enumerate(), 99
    )
    return [
        Record(
            phase="stages",
            number=number,
            state="complete",
            candidate=network,
            digest=network.digest,
            value=fmean(each),
            attributes={AP_BY_SUPERNET: each},
        )
        for number, (network, *scores) in enumerate(zip(networks, *supernets, strict=False))
        for each in [list(scores)]
    ]


def test_agreement_is_the_mean_tau_of_two_supernets(finished: Run) -> None:
    assert agreement(histories(finished)["stages"]) is None, "six networks are too few"
    up, swapped = [float(one) for one in range(8)], [1.0, 0.0, *map(float, range(2, 8))]
    found = agreement(history(up, swapped, up[::-1]))
    # Of 28 pairs one is the other way round; the third supernet has all others so.
    assert found is not None and found.tau == pytest.approx(fmean([26 / 28, -1.0, -26 / 28]))
    assert (found.supernets, found.silent) == (3, ())
    records = history(up, swapped, up[::-1])
    assert agreement([*records, replace(records[0], number=8)]) == found, "each network once"
    assert agreement(records[:7]) is None
    assert agreement([replace(one, attributes={}) for one in records]) is None
    text = str(agreement(history(up, swapped)))
    assert text == "the orders of two of its 2 supernets have Kendall's tau 0.93"


def test_a_supernet_that_tells_nothing_apart_is_named() -> None:
    up, dead = [float(one) for one in range(8)], [0.0] * 8
    found = agreement(history(up, dead, up))
    assert found is not None and (found.tau, found.silent) == (pytest.approx(1.0), (2,))
    assert str(found).endswith("tau 1.00, on average; supernet 2 gives all networks one score")
    assert str(agreement(history(up, dead))) == "supernet 2 gives all networks one score"
    trials = {"stages": history(up, dead), "random": history(up, dead), "dilations": ()}
    assert list(agreements(trials)) == ["stages"], "the rival has no supernets of its own"


def test_what_is_said_of_several(tmp_path: Path) -> None:
    lines: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            lines.append(text)

    run = Run.create(
        tmp_path / "run",
        tiny(
            "stages.supernet.members=2", "dilations=null", "space.branches=[[1,2,3],[1,2,3],[1,2,3],[1,2,3]]"
        ),
    )
    carry_out(run, Heard())
    line = agreements(histories(run))["stages"]
    assert line.startswith("the orders of two of its 2 supernets have Kendall's tau")
    assert f"  stages: {line}" in lines
    report = collect(run)
    assert f"Phase stages: {line}." in report.notes
    assert any("stages/supernet_2/held_out.json" in note for note in report.notes)
    assert report.allocation_chosen_by == "highest mean AP in 2 supernets"
    shown = summary(run.directory)
    assert shown["allocation_chosen_by"] == report.allocation_chosen_by
    assert shown["agreement"] == {"stages": line}


def test_warnings_say_of_which_supernet(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", tiny(*THREE))
    assert run.spent("stages") is None
    for number, place in ((1, "stages"), (2, "stages/supernet_2"), (11, "stages/supernet_11")):
        spent = {"steps": 12, "images": 48, "seconds": 1.5, "warnings": ["loss rose"][: number % 2]}
        run.write_json(f"{place}/spent.json", spent)
    warnings = ["supernet 1: loss rose", "supernet 11: loss rose"]
    assert run.spent("stages") == {"steps": 36, "images": 144, "seconds": 4.5, "warnings": warnings}
