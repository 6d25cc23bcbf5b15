"""Hand-made rivals: what a whole detector costs, and widths of equal cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import baseline_of, check_search
from nas.methods.hand_made import detector_cost, rival
from nas.methods.retraining import retrain_jobs, training_directory
from nas.recipes.crnas_space import SpaceRecipe
from nas.recipes.search import HandMadeRecipe, SearchRecipe
from nas.resolve import read_architecture
from nas.run import Run
from search_spaces.architecture import Genes
from search_spaces.catalog import family_of, get_architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError
from trainers.recipes import DetectorRecipe

TINY = Path(__file__).parent / "recipes/tiny_spinenet.yaml"
SIZE = (128, 128)
FCOS = DetectorRecipe(name="fcos", fpn_channels=16, levels=("c3", "c4", "c5"), head_convs=1)


def tiny(*overrides: str) -> SearchRecipe:
    return check_search(apply_overrides(read_yaml(TINY), overrides), source="tiny_spinenet.yaml")


def test_a_detector_costs_its_backbone_pyramid_and_head() -> None:
    """Counted by hand: lateral 1x1 and 3x3 convolutions, one shared-weight tower an output, two output layers."""
    architecture = read_architecture("resnet18")
    found = detector_cost(architecture, FCOS, 3, SIZE)
    body = cost(architecture, SIZE)
    cells = {3: 16 * 16, 4: 8 * 8, 5: 4 * 4}
    lateral = sum(count * 16 * (64 * 2 ** (level - 2)) for level, count in cells.items())
    every = sum(cells.values())
    convolution = 16 * 16 * 9
    assert found.macs == body.macs + lateral + every * (convolution + 2 * convolution + 16 * 9 * (3 + 5))
    pyramid = 16 * (128 + 256 + 512) + 3 * 16 + 3 * (convolution + 16)
    head = 2 * (convolution + 16 + 32) + 16 * 9 * 8 + 8
    assert found.params == body.params + pyramid + head


def test_a_spinenet_costs_what_is_published_of_it() -> None:
    """Its forward pass computes less than its layers one by one; its cost does not depend on that."""
    architecture = baseline_of(tiny())
    recipe = DetectorRecipe(name="fcos", pyramid="none", fpn_channels=16, levels=("p3", "p4"), head_convs=0)
    cells = 16 * 16 + 8 * 8
    assert detector_cost(architecture, recipe, 1, SIZE).macs == cost(
        architecture, SIZE
    ).macs + cells * 16 * 9 * (1 + 5)


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_widths_come_nearest_to_equal_cost(network: str) -> None:
    search = tiny()
    base = baseline_of(search)
    wanted = detector_cost(base, search.detector, 2, SIZE).macs
    space = SpaceRecipe(network=network, widths=(16, 32, 64, 128), stem="small")  # type: ignore[arg-type]
    found = rival(HandMadeRecipe(name="r", space=space, detector=FCOS), search, 2, SIZE)
    widths = found.architecture.settings["widths"]
    assert isinstance(widths, tuple) and all(int(str(width)) % 4 == 0 for width in widths)

    def macs(change: int) -> int:
        settings = {**found.architecture.settings, "widths": tuple(int(str(one)) + change for one in widths)}
        other = found.architecture.__class__.from_dict({**found.architecture.to_dict(), "settings": settings})
        return detector_cost(other, FCOS, 2, SIZE).macs

    assert abs(macs(0) - wanted) <= min(abs(macs(4) - wanted), abs(macs(-4) - wanted))


def test_widths_can_stay_as_they_are() -> None:
    space = SpaceRecipe(network="resnet18", widths=(16, 32, 64, 128))
    found = rival(HandMadeRecipe(name="r", space=space, equal_macs=False, detector=FCOS), tiny(), 2, SIZE)
    assert found.architecture.settings["widths"] == (16, 32, 64, 128)


@pytest.mark.parametrize(
    ("space", "detector", "words"),
    [
        (SpaceRecipe(network="mobilenetv2"), FCOS, "equal_macs: .* has no widths to scale"),
        (SpaceRecipe(network="resnet18", width_multiplier=2.0), FCOS, "space.width_multiplier: found 2.0"),
        (
            SpaceRecipe(network="resnet18"),
            DetectorRecipe(name="fcos", fpn_channels=512, levels=("c2", "c3", "c4", "c5"), head_convs=4),
            "no widths cost the baseline's [0-9,]+ multiply-adds",
        ),
        (SpaceRecipe(network="resnet18"), DetectorRecipe(levels=("p3",)), r"has no level \['p3'\]"),
    ],
)
def test_rivals_that_cannot_be(space: SpaceRecipe, detector: DetectorRecipe, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rival(HandMadeRecipe(name="r", space=space, detector=detector), tiny(), 2, SIZE)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("retrain.hand_made=[{name: winner, space: {}}]", "rivals with names of their own"),
        ("retrain.hand_made=[{name: a, space: {}}, {name: a, space: {}}]", "rivals with names of their own"),
        ("retrain.hand_made=[{name: ../a, space: {}}]", "name: found '../a'"),
        (
            "retrain.hand_made=[{name: a, space: {}, init: imagenet}]",
            "equal_macs: found True; .* init imagenet",
        ),
        ("retrain.hand_made=[{name: a, space: {}, equal_macs: false, init: bundle}]", "init: found 'bundle'"),
    ],
)
def test_names_of_rivals_are_checked(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny(override)


def test_a_pretrained_rival_begins_with_its_weights_and_the_others_from_scratch(tmp_path: Path) -> None:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    network = replace(named, settings=settings)
    state = family_of(network).build(network, seed=3).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    space = "{network: resnet18, widths: [8, 8, 8, 8], stem: small}"
    detector = "{fpn_channels: 8, levels: [c3, c4, c5], head_convs: 0}"
    rest = f"equal_macs: false, detector: {detector}, init: {tmp_path / 'weights.safetensors'}"
    recipe = tiny(f"retrain.hand_made=[{{name: pretrained, space: {space}, {rest}}}]", "retrain.seeds=2")
    run = Run.create(tmp_path / "run", recipe)
    run.write_json("data.json", {"image_size": [128, 128], "categories": ["a", "b"]})
    for _ in range(2):  # worked out, then read
        jobs = {job.directory.parent.name: job for job in retrain_jobs(run, baseline_of(recipe), {})}
        begun = jobs.pop("pretrained")
        assert begun.weights is not None and begun.recipe.init == str(tmp_path / "weights.safetensors")
        assert all(torch.equal(one, state[name]) for name, one in begun.weights.tensors.items())
        assert jobs and all(job.weights is None and job.recipe.init == "scratch" for job in jobs.values())
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match="nothing at that path"):
        retrain_jobs(run, baseline_of(recipe), {})
    for seed in (0, 1):
        done = training_directory(run, "pretrained", recipe.retrain.first_seed + seed)  # type: ignore[union-attr]
        done.mkdir(parents=True)
        (done / "result.json").write_text("{}")
    assert len(retrain_jobs(run, baseline_of(recipe), {})) == 4
