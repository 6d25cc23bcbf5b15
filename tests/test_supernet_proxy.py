"""The shared-weight proxy: fair paths, paired scores, weights left alone, training that resumes exactly."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from nas.config import check, read_yaml
from nas.methods.crnas_supernets import any_allocation
from nas.methods.spaces import dilation_space, stage_space
from nas.proxies.paths import uniform
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.race import RaceRecipe
from nas.trials import BY_GROUP
from search_spaces.architecture import Architecture, Candidate
from search_spaces.crnas.path_memory import PathMemory
from search_spaces.crnas.supernet import DilationSupernet, StageSupernet, Supernet
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.boxes import Boxes
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.detectors.catalog import build_detector
from trainers.evaluate import coco_metrics, detect
from trainers.image_groups import GroupTruth
from trainers.loop import Trainer

RECIPE = check(CRNASRecipe, read_yaml(Path(__file__).parent / "recipes/tiny.yaml"), source="tiny.yaml")
STAGES = stage_space(RECIPE.space)
DILATIONS = dilation_space(STAGES.baseline)
TRAIN, HELD_OUT = hold_out(open_split(RECIPE.data, "train"), RECIPE.data.hold_out, seed=1)
SEED = 11


def make(
    space: SearchSpace,
    supernet: Supernet,
    directory: Path,
    *,
    draw: Callable[..., Architecture] | None = None,
    steps: int = 6,
    ema: float | None = None,
    race: RaceRecipe | None = None,
) -> SupernetProxy:
    train = replace(RECIPE.stages.supernet.train, steps=steps, checkpoint_every=2, ema=ema)
    return SupernetProxy(
        space=space,
        draw_path=uniform(draw or space.sample, SEED),
        supernet=supernet,
        detector=build_detector(RECIPE.detector, supernet, TRAIN.num_classes, TRAIN.image_size, seed=SEED),
        train_set=TRAIN,
        held_out=HELD_OUT,
        recipe=replace(RECIPE.stages.supernet, train=train),
        seed=SEED,
        directory=directory,
        device=torch.device("cpu"),
        race=race,
    )


def stage_proxy(directory: Path, steps: int = 6) -> SupernetProxy:
    supernet = StageSupernet(
        family=STAGES.baseline.family,
        settings=STAGES.baseline.settings,
        branches=STAGES.branches,
        sharing="independent",
        seed=SEED,
    )
    return make(STAGES, supernet, directory, draw=lambda rng: any_allocation(STAGES, rng), steps=steps)


def dilation_proxy(directory: Path, steps: int = 6, race: RaceRecipe | None = None) -> SupernetProxy:
    supernet = DilationSupernet(DILATIONS.baseline, seed=SEED)
    return make(DILATIONS, supernet, directory, steps=steps, race=race)


MAKERS = {"stages": stage_proxy, "dilations": dilation_proxy}


def candidates() -> list[Candidate]:
    """Two prefixes of one level, one of another, and two whole candidates."""
    whole = DILATIONS.sample(rng_for(0, "candidate"))
    return [
        DILATIONS.prefix([1, 2]),
        DILATIONS.prefix([3, 1]),
        DILATIONS.prefix([1, 2, 2]),
        DILATIONS.baseline,
        whole,
    ]


def state_of(proxy: SupernetProxy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in proxy.detector.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SupernetProxy:
    torch.set_num_threads(1)
    proxy = dilation_proxy(tmp_path_factory.mktemp("dilations"), steps=8)
    proxy.prepare()
    return proxy


def test_what_is_scored_of_an_averaged_supernet_is_the_average(tmp_path: Path) -> None:
    def proxy(ema: float | None, directory: Path) -> SupernetProxy:
        return make(DILATIONS, DilationSupernet(DILATIONS.baseline, seed=SEED), directory, ema=ema)

    start = state_of(proxy(None, tmp_path))
    plain, averaged = proxy(None, tmp_path / "plain"), proxy(0.99, tmp_path / "averaged")
    plain.prepare(), averaged.prepare()
    again = proxy(0.99, tmp_path / "averaged")
    again.load()
    assert_same(state_of(again), state_of(averaged))
    assert again(DILATIONS.baseline).value == averaged(DILATIONS.baseline).value
    moved, found = state_of(plain), state_of(averaged)
    weights = [name for name, _ in plain.detector.named_parameters()]
    off = [name for name in weights if torch.equal(moved[name], start[name])]
    assert all(torch.equal(found[name], start[name]) for name in off), "never on a path"
    on = [name for name in weights if name not in off]
    assert on and not any(torch.equal(found[name], moved[name]) for name in on)


@contextmanager
def spy(proxy: SupernetProxy) -> Iterator[list[tuple[str, object]]]:
    """Log the paths set and the images that reach the backbone."""
    seen: list[tuple[str, object]] = []
    set_path = proxy.supernet.set_path

    def noted(architecture: Architecture) -> None:
        seen.append(("path", architecture))
        set_path(architecture)

    def images(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(("images", (tuple(inputs[0].shape), float(inputs[0].double().sum()))))

    proxy.supernet.set_path = noted  # type: ignore[method-assign]
    hook = proxy.detector.backbone.body.register_forward_pre_hook(images)
    try:
        yield seen
    finally:
        del proxy.supernet.set_path
        hook.remove()


def test_every_branch_of_a_stage_is_drawn_equally_often() -> None:
    tables = [STAGES.branches, ((1, 2, 3, 4),) * 4, ((1, 2), (1, 2, 3), (2, 5, 9), (1, 2, 3, 4, 5))]
    for table in tables:
        space = stage_space(replace(RECIPE.space, branches=((1, 2, 3, 4),) * 4))
        space.branches = table
        counts = [Counter[int]() for _ in table]
        for step in range(10_000):
            blocks = any_allocation(space, rng_for(SEED, "path", step)).genes["blocks"]
            assert isinstance(blocks, tuple)
            for counter, count in zip(counts, blocks, strict=True):
                counter[count] += 1  # type: ignore[index]
        for counter, allowed in zip(counts, table, strict=True):
            assert set(counter) == set(allowed)
            assert chisquare([counter[count] for count in allowed]).pvalue > 1e-3


def test_training_ignores_the_budget_but_not_the_branches() -> None:
    sums = {sum(any_allocation(STAGES, rng_for(0, step)).genes["blocks"]) for step in range(200)}  # type: ignore[arg-type]
    assert sums == {6, 7, 8, 9, 10}, "the supernet learns every branch, whatever the others are"


def test_every_dilation_is_drawn_equally_often() -> None:
    counts = Counter[tuple[int, int]]()
    for step in range(3_000):
        dilations = DILATIONS.sample(rng_for(SEED, "path", step)).genes["dilations"]
        assert isinstance(dilations, tuple)
        counts.update(enumerate(dilations))  # type: ignore[arg-type]
    for block in range(8):
        assert chisquare([counts[block, dilation] for dilation in (1, 2, 3)]).pvalue > 1e-3


def test_the_paths_of_training_are_those_drawn(tmp_path: Path) -> None:
    proxy = stage_proxy(tmp_path)
    with spy(proxy) as seen:
        proxy.prepare()
    paths = [what for kind, what in seen if kind == "path"]
    assert paths == [any_allocation(STAGES, rng_for(SEED, "path", step)) for step in range(6)]


def test_equal_scores_in_any_order_and_in_any_process(trained: SupernetProxy) -> None:
    chosen = candidates()
    first = [trained(candidate).value for candidate in chosen]
    assert len(set(first)) > 1 and all(value >= 0 for value in first)
    assert [trained(candidate).value for candidate in reversed(chosen)] == first[::-1]
    # As after a kill: another object, its weights read from the checkpoint.
    again = dilation_proxy(trained.directory, steps=8)
    again.prepare()
    assert [again(candidate).value for candidate in chosen] == first


def test_scoring_leaves_the_supernet_as_it_was(trained: SupernetProxy) -> None:
    before = state_of(trained)
    momenta = [getattr(module, "momentum", None) for module in trained.detector.modules()]
    for candidate in candidates()[::2]:
        trained(candidate)
    assert_same(state_of(trained), before)
    assert [getattr(module, "momentum", None) for module in trained.detector.modules()] == momenta


def test_a_score_that_is_stopped_leaves_the_supernet_as_it_was(
    trained: SupernetProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(trained)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.proxies.supernet.boxes_evaluating", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(DILATIONS.baseline)
    assert_same(state_of(trained), before)


def test_candidates_of_a_level_see_the_same_completions_and_images(
    trained: SupernetProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is remembered is not looked at.
    monkeypatch.setattr(trained, "_memory", PathMemory(0))
    logs = []
    for values in ([1, 2], [3, 1], [2, 2]):
        prefix = DILATIONS.prefix(values)
        with spy(trained) as seen:
            trained(prefix)
        paths = [what.genes["dilations"] for kind, what in seen if kind == "path"]  # type: ignore[attr-defined]
        assert all(path[:2] == tuple(values) for path in paths), "decided genes are never altered"
        logs.append(([path[2:] for path in paths], [what for kind, what in seen if kind == "images"]))
    assert logs[0] == logs[1] == logs[2]
    completions, images = logs[0]
    assert len(completions) == 2 + 2 == len(images), "2 batches of recalibration, 2 of scoring"
    assert len(set(completions)) == 4, "completed anew for every mini-batch"
    with spy(trained) as seen:
        trained(DILATIONS.prefix([1, 2, 3]))
    assert [what for kind, what in seen if kind == "images"] == images, "images do not depend on the level"
    deeper = [what.genes["dilations"][3:] for kind, what in seen if kind == "path"]  # type: ignore[attr-defined]
    assert deeper != [path[1:] for path in completions], "each level has completions of its own"


def test_a_whole_candidate_runs_on_its_own_path_only(trained: SupernetProxy) -> None:
    whole = DILATIONS.sample(rng_for(0, "whole"))
    with spy(trained) as seen:
        trained(whole)
    assert {what for kind, what in seen if kind == "path"} == {whole}


def test_recalibration_takes_training_images_and_every_held_out_image_is_scored(
    trained: SupernetProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "_memory", PathMemory(0))
    with spy(trained) as seen:
        trained(DILATIONS.baseline)
    shapes = [what[0] for kind, what in seen if kind == "images"]  # type: ignore[index]
    assert [shape[0] for shape in shapes] == [4, 4, 3, 3] and len(HELD_OUT) == 6
    with torch.no_grad():
        own = [trained.detector.normalise(HELD_OUT.images[i : i + 3]) for i in (0, 3)]
    sums = [what[1] for kind, what in seen if kind == "images"]  # type: ignore[index]
    assert sums[2:] == [float(batch.double().sum()) for batch in own]
    known = {image.numpy().tobytes() for image in TRAIN.images}
    for batch in trained._recalibration(DILATIONS.baseline, -1):
        pictures = {image.numpy().tobytes() for image in batch}
        assert len(pictures) == 4 and pictures <= known


@pytest.mark.parametrize("kind", MAKERS)
def test_training_stopped_and_resumed_equals_uninterrupted(kind: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = MAKERS[kind](tmp_path / "whole")
    losses: list[float] = []
    whole.prepare(lambda record: losses.append(record.loss))

    class Stopped(Exception):
        pass

    resumed: dict[int, float] = {}
    for stop in (2, 4, 99):  # inside the steps between two checkpoints, twice
        part = MAKERS[kind](tmp_path / "part")

        def note(record: object, stop: int = stop) -> None:
            resumed[record.step] = record.loss  # type: ignore[attr-defined]
            if record.step == stop:  # type: ignore[attr-defined]
                raise Stopped

        if stop < 99:
            with pytest.raises(Stopped):
                part.prepare(note)
        else:
            part.prepare(note)
    assert [resumed[step] for step in range(6)] == losses
    assert_same(state_of(part), state_of(whole))
    candidate = STAGES.baseline if kind == "stages" else DILATIONS.prefix([2])
    assert part(candidate).value == whole(candidate).value


def test_a_finished_training_is_not_trained_again(trained: SupernetProxy) -> None:
    def never(record: object) -> None:
        raise AssertionError(f"ran again: {record}")

    before = (trained.directory / "checkpoint.pt").read_bytes()
    again = dilation_proxy(trained.directory, steps=8)
    again.prepare(never)
    assert (trained.directory / "checkpoint.pt").read_bytes() == before
    assert_same(state_of(again), state_of(trained))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_step_moves_the_weights_of_its_path_only(kind: str, tmp_path: Path) -> None:
    proxy = MAKERS[kind](tmp_path)
    trainer = Trainer(
        detector=proxy.detector,
        data=TRAIN,
        recipe=proxy.recipe.train,
        seed=SEED,
        directory=tmp_path,
        device=proxy.device,
        before_step=proxy._draw_path,
    )
    draw = any_allocation if kind == "stages" else lambda space, rng: space.sample(rng)
    for step in range(4):
        path = draw(STAGES if kind == "stages" else DILATIONS, rng_for(SEED, "path", step))  # type: ignore[arg-type]
        active = {id(module) for module in proxy.supernet.active_modules(path)}
        before = state_of(proxy)
        trainer.run(stop_at=step + 1)
        touched = untouched = 0
        for name, module in proxy.supernet.named_modules():
            if list(module.children()) or not module.state_dict():
                continue
            # Momentum of earlier steps and weight decay move nothing off the path, and BN counts nothing.
            same = all(
                torch.equal(value, before[f"backbone.body.{name}.{key}"])
                for key, value in module.state_dict().items()
            )
            assert same == (id(module) not in active), f"step {step}: {name}"
            touched, untouched = touched + (not same), untouched + same
        assert touched > 5 and untouched > 5


def made_up(shift: float) -> list[dict[str, Any]]:
    """Every object found, moved by some px, and one that is not there in each image."""
    found = []
    for index, target in enumerate(HELD_OUT.targets):
        corners = target["boxes"] / HELD_OUT.scales[index].repeat(2)
        for place, (box, label) in enumerate(zip(corners.tolist(), target["labels"].tolist(), strict=True)):
            x, y, right, bottom = box
            near = [x + shift * (index % 3), y, right - x, bottom - y]
            entry = {"image_id": target["image_id"], "category_id": HELD_OUT.categories[label].id}
            found.append({**entry, "bbox": near, "score": 0.9 - 0.1 * place - 0.01 * index})
            found.append({**entry, "bbox": [0.0, 0.0, 9.0, 9.0], "score": 0.5})
    return found


def test_ap_of_a_group_is_that_of_its_images() -> None:
    results = made_up(4.0)
    whole, parts = GroupTruth(HELD_OUT, 3).aps(Boxes.of_results(results))
    assert whole == coco_metrics(HELD_OUT, results).AP and len(set(parts)) > 1
    for group, ap in enumerate(parts):
        own = HELD_OUT.subset(index for index in range(len(HELD_OUT)) if index % 3 == group)
        assert ap == coco_metrics(own, results).AP
    with pytest.raises(ValueError, match="groups: found 1; allowed is 2 to 6"):
        GroupTruth(HELD_OUT, 1)


def test_a_rung_is_the_first_part_of_the_whole_score(tmp_path: Path) -> None:
    """Same statistics and detections, so what is compared at a rung is what will be compared at the end."""
    proxy = dilation_proxy(tmp_path, race=RaceRecipe(first=4, groups=4))
    proxy.prepare()
    assert sorted(proxy.held_out.image_ids) == sorted(HELD_OUT.image_ids)
    first = set(proxy.held_out.image_ids[:3])
    for candidate in candidates():
        whole, part = (proxy._detections(candidate, images).results() for images in (None, 3))
        assert part == [one for one in whole if one["image_id"] in first]
        score = proxy.at(candidate, 3)
        assert score.value == 100 * coco_metrics(proxy.held_out.subset(range(3)), part).AP
        assert len(list(score.attributes[BY_GROUP])) == 3  # type: ignore[arg-type]
        assert proxy(candidate).value == 100 * coco_metrics(proxy.held_out, whole).AP
    torch.testing.assert_close(proxy.held_out.scales, HELD_OUT.scales)


def test_without_recalibration_a_candidate_has_the_statistics_of_the_training(tmp_path: Path) -> None:
    proxy = dilation_proxy(tmp_path)
    proxy.prepare()
    proxy.recipe = replace(proxy.recipe, recalibration_batches=0)
    before = state_of(proxy)
    score = proxy(DILATIONS.baseline)
    proxy.supernet.set_path(DILATIONS.baseline)
    found = detect(proxy.detector, HELD_OUT, batch_size=3, device=proxy.device)
    assert score.value == 100 * coco_metrics(HELD_OUT, found).AP
    for name, value in state_of(proxy).items():
        assert torch.equal(value, before[name]), name
