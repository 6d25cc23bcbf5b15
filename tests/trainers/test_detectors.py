"""Every detector of the catalog keeps one contract; FCOS computes what torchvision's computes."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS as TorchvisionFCOS

from search_spaces.architecture import Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.recipe import FieldError
from trainers.data.detection_set import Target
from trainers.detectors.catalog import DETECTORS, build_detector
from trainers.detectors.detector import Detector
from trainers.detectors.fcos import FCOS
from trainers.recipes import DetectorRecipe
from trainers.seeding import torch_seed

Backbones = Callable[..., nn.Module]
CPU = torch.device("cpu")
RECIPES = {
    "fcos": DetectorRecipe(name="fcos", fpn_channels=16, score_threshold=0.0),
    "faster_rcnn": DetectorRecipe(
        name="faster_rcnn", fpn_channels=16, box_head=32, candidates=60, roi_batch=32, score_threshold=0.0
    ),
    "retinanet": DetectorRecipe(name="retinanet", fpn_channels=16, anchor_scale=3.0, score_threshold=0.0),
    "mask_rcnn": DetectorRecipe(
        name="mask_rcnn",
        fpn_channels=16,
        box_head=32,
        candidates=60,
        roi_batch=32,
        mask_convs=1,
        score_threshold=0.0,
    ),
    "cascade_rcnn": DetectorRecipe(
        name="cascade_rcnn", fpn_channels=16, box_head=32, candidates=60, roi_batch=32, score_threshold=0.0
    ),
}


@pytest.fixture(params=DETECTORS)
def recipe(request: pytest.FixtureRequest) -> DetectorRecipe:
    return RECIPES[request.param]


def built(recipe: DetectorRecipe, backbone: nn.Module, classes: int = 2, side: int = 64) -> Detector:
    return build_detector(recipe, backbone, classes, (side, side), seed=0)


def target(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> Target:
    """Boxes in an image of 64 px, and masks that fill them."""
    masks = torch.zeros((len(boxes), 64, 64), dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = 1
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        image_id=1,
        masks=masks,
    )


def images(count: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def losses(detector: Detector, *targets: Target) -> dict[str, Tensor]:
    with torch_seed(0):
        return detector.losses(images(len(targets)), targets)


def test_the_seed_decides_the_heads_and_leaves_the_backbone(
    recipe: DetectorRecipe, tiny_backbone: Backbones
) -> None:
    before = torch.random.get_rng_state()
    states = [
        build_detector(recipe, tiny_backbone(0), 2, (64, 64), seed=seed).state_dict() for seed in (3, 3, 4)
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    moved = {name for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert moved and not any(name.startswith("backbone.body.") for name in moved)


@pytest.mark.parametrize("levels", [("c2",), ("c3", "c4", "c5"), ("c2", "c5"), ("c2", "c3", "c4", "c5")])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_any_pyramid_the_backbone_declares(
    recipe: DetectorRecipe, tiny_backbone: Backbones, levels: tuple[str, ...], extra: int
) -> None:
    detector = built(replace(recipe, levels=levels, extra_levels=extra), tiny_backbone()).train()
    assert len(detector.backbone.strides) == len(levels) + extra
    assert torch.isfinite(torch.stack(list(losses(detector, target((3, 3, 30, 40))).values())).sum())
    detector.eval()
    with torch.no_grad():
        assert len(detector.detections(images(1))) == 1


def test_what_cannot_be_built_is_said(recipe: DetectorRecipe, tiny_backbone: Backbones) -> None:
    with pytest.raises(ConfigError, match=r"no level \['c9'\]; it declares \['c2', 'c3', 'c4', 'c5'\]"):
        built(replace(recipe, levels=("c2", "c9")), tiny_backbone())
    with pytest.raises(ConfigError, match="strides that rise"):
        built(replace(recipe, levels=("c3", "c2")), tiny_backbone())
    with pytest.raises(ConfigError, match="needs an attribute `levels`"):
        built(recipe, nn.Conv2d(3, 8, 1))
    with pytest.raises(ConfigError, match="multiples of its largest stride, 32"):
        built(recipe, tiny_backbone(), side=48)
    with pytest.raises(ConfigError, match="at least 1 category"):
        built(recipe, tiny_backbone(), classes=0)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"c2": (8, 4), "c6": (8, 8)}, r"declared levels \['c6'\] but returned"),
        ({"c2": (8, 8)}, r"declared stride 8 for c2, so a map of \(8, 8\)"),
    ],
)
def test_a_backbone_that_breaks_its_word_is_named(
    recipe: DetectorRecipe, tiny_backbone: Backbones, declared: dict[str, tuple[int, int]], words: str
) -> None:
    backbone = tiny_backbone()
    backbone.levels = declared  # type: ignore[assignment]
    detector = built(replace(recipe, levels=tuple(declared)), backbone).eval()
    with pytest.raises(InvalidArchitecture, match=words):
        detector.detections(images())


@pytest.mark.parametrize(
    "settings",
    [
        {"levels": ()},
        {"levels": ("c2", "c2")},
        {"fpn_channels": 12},
        {"extra_levels": -1},
        {"extra_levels": 3},
        {"head_convs": -1},
        {"anchor_scale": 0.0},
        {"nms": 1.0},
        {"score_threshold": 1.0},
        {"detections": 0},
        {"name": "faster_rcnn", "box_convs": -1},
        {"name": "mask_rcnn", "mask_convs": -1},
        {"name": "mask_rcnn", "mask_channels": 0},
        {"name": "faster_rcnn", "roi_scale": 0.0},
        {"name": "retinanet", "head_channels": 0},
        {"name": "faster_rcnn", "head_channels": 64},
        {"name": "retinanet", "norm_momentum": 0.0},
        {"name": "retinanet", "norm_momentum": 1.5},
        {"name": "mask_rcnn", "norm_eps": 0.0},
        {"name": "retinanet", "focal_alpha": 1.0},
        {"name": "retinanet", "focal_gamma": 0.5},
        {"name": "retinanet", "huber_delta": 0.0},
        {"name": "retinanet", "box_weight": 0.0},
    ],
)
def test_recipes_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"found .*; allowed is "):
        DetectorRecipe(**settings)


@pytest.mark.parametrize(
    ("name", "field", "value", "reader"),
    [
        ("faster_rcnn", "shared_tower", True, "fcos"),
        ("fcos", "box_head", 64, "faster_rcnn and mask_rcnn and cascade_rcnn"),
        ("cascade_rcnn", "mask_convs", 2, "mask_rcnn"),
        ("faster_rcnn", "mask_convs", 2, "mask_rcnn"),
        ("retinanet", "mask_channels", 2, "mask_rcnn"),
        ("mask_rcnn", "shared_tower", True, "fcos"),
        ("fcos", "roi_batch", 64, "faster_rcnn"),
        ("retinanet", "box_convs", 4, "faster_rcnn"),
        ("fcos", "roi_scale", 7.0, "faster_rcnn"),
        ("fcos", "head_channels", 64, "retinanet"),
        ("fcos", "norm_momentum", 0.01, "retinanet and faster_rcnn"),
        ("fcos", "norm_eps", 1e-3, "retinanet and faster_rcnn"),
        ("faster_rcnn", "head_activation", "swish", "retinanet"),
        ("fcos", "head_separable", True, "retinanet"),
        ("fcos", "focal_alpha", 0.5, "retinanet"),
        ("fcos", "focal_gamma", 2.0, "retinanet"),
        ("faster_rcnn", "huber_delta", 1.0, "retinanet"),
        ("faster_rcnn", "box_weight", 1.0, "retinanet"),
    ],
)
def test_a_field_of_another_detector_is_refused(name: Any, field: str, value: object, reader: str) -> None:
    settings: dict[str, Any] = {field: value}
    message = rf"{field}: found {value!r}; allowed is .* for {name}, which does not read it \(only .*{reader}"
    with pytest.raises(FieldError, match=message):
        DetectorRecipe(name=name, **settings)


class NamedMaps(nn.Module):
    """What torchvision's constructor asks of a backbone; never run here."""

    out_channels = 32


def torchvision_twin(detector: FCOS, grids: list[tuple[int, int]]) -> tuple[Any, Tensor]:
    """torchvision's FCOS and our locations as its anchors."""
    twin = TorchvisionFCOS(NamedMaps(), detector.num_classes)
    # It counts the radius in anchors, the paper and we in strides; they are one at anchor scale 1.
    twin.center_sampling_radius *= detector.backbone.strides[0] / detector.anchors[0]
    twin.score_thresh, twin.nms_thresh, twin.detections_per_img = 0.0, detector.nms, detector.max_detections
    points, sizes = detector._locations(grids, CPU)
    half = sizes[:, None] / 2
    return twin, torch.cat((points - half, points + half), dim=1)


def some_boxes(generator: torch.Generator, count: int, side: int) -> Tensor:
    """Areas are exact and multiples of 64: torchvision's float32 tie break cannot tell apart less than 8."""
    sizes = 8.0 * torch.randint(1, side // 8, (count, 2), generator=generator)
    corner = torch.floor(16 * torch.rand((count, 2), generator=generator) * (side - sizes)) / 16
    return torch.cat((corner, corner + sizes), dim=1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_fcos_losses_are_those_of_torchvision(tiny_backbone: Backbones, seed: int, scale: float) -> None:
    detector = built(replace(RECIPES["fcos"], anchor_scale=scale), tiny_backbone(), classes=3, side=128)
    assert isinstance(detector, FCOS)
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in (0, 1, 9, 40):
        labels = torch.randint(0, 3, (count,), generator=generator)
        targets.append(Target(boxes=some_boxes(generator, count, 128), labels=labels, image_id=1))
    batch = images(4, 128, seed)
    logits, reaches, centerness, grids = detector._outputs(batch)
    distances = detector.head.distances(reaches)
    twin, anchors = torchvision_twin(detector, list(grids))
    expected = twin.compute_loss(
        targets,
        {"cls_logits": logits, "bbox_regression": distances, "bbox_ctrness": centerness[:, :, None]},
        [anchors] * 4,
        [height * width for height, width in grids],
    )
    torch.testing.assert_close(dict(detector.losses(batch, targets)), expected, rtol=1e-5, atol=1e-6)


def test_fcos_detections_are_those_of_torchvision(tiny_backbone: Backbones) -> None:
    recipe = replace(RECIPES["fcos"], candidates=100_000, detections=50)
    detector = built(recipe, tiny_backbone(), classes=3).eval()
    assert isinstance(detector, FCOS)
    nn.init.normal_(detector.head.box.weight, std=0.5)
    nn.init.normal_(detector.head.cls_logits.weight, std=0.5)
    with torch.no_grad():
        logits, reaches, centerness, grids = detector._outputs(images())
        distances = detector.head.distances(reaches)
        twin, anchors = torchvision_twin(detector, list(grids))
        counts = [height * width for height, width in grids]
        outputs = {"cls_logits": logits, "bbox_regression": distances, "bbox_ctrness": centerness[:, :, None]}
        expected = twin.postprocess_detections(
            {name: list(value.split(counts, dim=1)) for name, value in outputs.items()},
            [list(anchors.split(counts))] * 2,
            [(64, 64)] * 2,
        )
        found = detector.detections(images())
    for one, other in zip(found, expected, strict=True):
        assert len(one["scores"]) == 50
        torch.testing.assert_close(one["scores"], other["scores"])
        torch.testing.assert_close(one["boxes"], other["boxes"])
        assert torch.equal(one["labels"], other["labels"])


def test_locations_are_the_middles_of_their_cells(tiny_backbone: Backbones) -> None:
    detector = built(RECIPES["fcos"], tiny_backbone())
    assert isinstance(detector, FCOS)
    points, sizes = detector._locations([(2, 3), (1, 2), (1, 1), (1, 1)], CPU)
    assert points.tolist()[:7] == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6], [4, 4]]
    assert sizes.tolist() == [4] * 6 + [8] * 2 + [16, 32]


def test_of_two_boxes_at_one_place_the_smaller_wins_by_any_margin(tiny_backbone: Backbones) -> None:
    detector = built(RECIPES["fcos"], tiny_backbone())
    assert isinstance(detector, FCOS)
    grids = [(16, 16), (8, 8), (4, 4), (2, 2)]
    both = target((20, 20, 30, 30), (20, 20, 30, 29.9), labels=(0, 1))
    _, _, boxes, labels = detector.assign([both], grids, CPU)
    inside = boxes[labels == 1]
    assert len(inside) and (labels == 1).all(), "every location of the larger box lies in the smaller one"


def test_the_pyramid_keeps_names_and_strides(tiny_backbone: Backbones) -> None:
    for name, weights in (("fcos", 2 * (16 * 16 * 9 + 16)), ("faster_rcnn", 0)):
        plain = built(RECIPES[name], tiny_backbone())
        detector = built(replace(RECIPES[name], extra_levels=2), tiny_backbone(), side=128)
        maps = detector.backbone(detector.normalise(images(side=128)))
        assert isinstance(maps, OrderedDict | dict)
        assert tuple(maps) == detector.backbone.names == ("c2", "c3", "c4", "c5", "extra1", "extra2")
        assert detector.backbone.strides == (4, 8, 16, 32, 64, 128)
        assert [128 // one.shape[-1] for one in maps.values()] == list(detector.backbone.strides)
        assert {one.shape[1] for one in maps.values()} == {16}
        assert parameters(detector.backbone) - parameters(plain.backbone) == weights


def test_the_second_extra_map_reads_the_first_through_a_relu(tiny_backbone: Backbones) -> None:
    body = built(replace(RECIPES["fcos"], extra_levels=2), tiny_backbone()).backbone
    convs = body.get_submodule("fpn.extra_blocks.convs")
    assert isinstance(convs, nn.ModuleList)
    maps = body(images().float())
    assert (maps["extra1"] < 0).any(), "the ReLU stands between the two, not on the first"
    torch.testing.assert_close(maps["extra1"], convs[0](maps["c5"]))
    torch.testing.assert_close(maps["extra2"], convs[1](maps["extra1"].clamp(min=0)))


def test_levels_of_an_image_that_the_extra_strides_do_not_divide(tiny_backbone: Backbones) -> None:
    recipe = replace(RECIPES["fcos"], extra_levels=2, anchor_scale=0.5)
    detector = built(recipe, tiny_backbone(), side=96)
    whole = target((0, 0, 96, 96))
    found = detector.objects_by_level([whole], (96, 96))
    assert list(found) == ["c2", "c3", "c4", "c5", "extra1", "extra2"]
    assert found == {"c2": 0, "c3": 0, "c4": 1, "c5": 1, "extra1": 0, "extra2": 0}
    assert torch.isfinite(torch.stack(list(detector.losses(images(1, 96), [whole]).values())).sum())


def test_objects_by_level_counts_objects_not_locations(tiny_backbone: Backbones) -> None:
    detector = built(replace(RECIPES["fcos"], anchor_scale=1.0), tiny_backbone(), classes=3, side=128)
    boxes = torch.tensor([[0.0, 0.0, 12.0, 12.0], [40.0, 40.0, 100.0, 100.0]])
    targets = [Target(boxes=boxes, labels=torch.zeros(2, dtype=torch.int64), image_id=1)]
    found = detector.objects_by_level(targets, (128, 128))
    strides = dict(zip(found, detector.backbone.strides, strict=True))
    small = next(iter(found))
    assert found[small] >= 1
    # 60 px reach 30 to 60 px from their locations: levels with 4 * stride below 60 and 8 * stride above 30.
    assert {name for name, count in found.items() if count} <= {small} | {
        name for name, stride in strides.items() if 4 * stride < 60 and 8 * stride > 30
    }
    assert max(found.values()) <= 2


def test_distances_cannot_die(tiny_backbone: Backbones) -> None:
    """With a ReLU, outputs driven negative give empty boxes, GIoU loss 1 and no gradient, for ever."""
    detector = built(RECIPES["fcos"], tiny_backbone(), classes=3, side=128)
    assert isinstance(detector, FCOS)
    with torch.no_grad():
        detector.head.box.bias[:4] = -5.0
    targets = [
        Target(
            boxes=torch.tensor([[10.0, 10.0, 40.0, 40.0]]),
            labels=torch.zeros(1, dtype=torch.int64),
            image_id=1,
        )
    ]
    losses = detector.losses(images(1, 128, 0), targets)
    losses["bbox_regression"].backward()
    assert detector.head.box.bias.grad is not None
    assert (detector.head.box.bias.grad[:4] < 0).all(), "a step must make the boxes larger"


class EvenPyramid(nn.Module):
    """A backbone that is a pyramid already: every level is 16 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = {"p3": (16, 8), "p4": (16, 16), "p5": (16, 32)}
        with torch_seed(0):
            self.stem = nn.Conv2d(3, 16, 3, stride=8, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.stem(images)
        return {name: fine[:, :, ::step, ::step] for name, step in (("p3", 1), ("p4", 2), ("p5", 4))}


def test_a_backbone_that_is_a_pyramid_goes_without_an_fpn(recipe: DetectorRecipe) -> None:
    plain = replace(recipe, pyramid="none", levels=("p3", "p4", "p5"))
    body = EvenPyramid()
    detector = built(plain, body)
    maps = detector.backbone(detector.normalise(images()))
    expected = body(detector.normalise(images()))
    assert list(maps) == list(expected)
    assert all(torch.equal(maps[name], expected[name]) for name in maps)
    assert not list(detector.backbone.fpn.parameters())
    coarser = built(replace(plain, extra_levels=1), EvenPyramid())
    sizes = [one.shape[-1] for one in coarser.backbone(coarser.normalise(images())).values()]
    assert sizes == [8, 4, 2, 1] and coarser.backbone.strides == (8, 16, 32, 64)
    assert sum(losses(coarser, target((4, 4, 40, 40)), target()).values()).isfinite()
    with pytest.raises(
        ConfigError, match=r"fpn_channels: found 32, but without an FPN .* p3 has 16 channels"
    ):
        built(replace(plain, fpn_channels=32), EvenPyramid())


@pytest.mark.parametrize(
    ("width", "layout"),
    [(4, torch.contiguous_format), (8, torch.contiguous_format), (16, torch.channels_last)],
)
def test_very_narrow_backbones_are_trained_in_the_layout_that_torch_survives(
    width: int, layout: torch.memory_format
) -> None:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (width,) * 4, "stem": "small"})
    architecture = replace(
        named, settings=settings, genes=Genes({"blocks": (1, 1, 1, 1), "dilations": (1,) * 4})
    )
    detector = built(RECIPES["fcos"], family_of(architecture).build(architecture, seed=0))
    assert detector.layout == layout
    for _ in range(4):
        everywhere = target((4, 4, 14, 12), (10, 10, 40, 44))
        torch.stack(list(losses(detector, everywhere).values())).sum().backward()  # type: ignore[no-untyped-call]


def test_what_a_level_looks_for(tiny_backbone: Backbones) -> None:
    fcos = DetectorRecipe(name="fcos", fpn_channels=16, levels=("c3", "c4"), anchor_scale=0.5)
    assert [fcos.object_side(stride) for stride in (8, 16)] == [64.0, 128.0]
    detector = built(fcos, tiny_backbone(), side=256)
    for side, level in ((50.0, "c3"), (80.0, "c4")):
        box = torch.tensor([[128 - side / 2, 128 - side / 2, 128 + side / 2, 128 + side / 2]])
        found = detector.objects_by_level(
            [Target(boxes=box, labels=torch.zeros(1, dtype=torch.int64), image_id=1)], (256, 256)
        )
        assert found[level] == 1, (side, found)
    assert DetectorRecipe(name="faster_rcnn", anchor_scale=8.0).object_side(4) == 32.0
