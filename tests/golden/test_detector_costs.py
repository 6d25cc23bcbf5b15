"""Whole detectors counted in closed form: against printed figures, against torchvision's and against what is built."""

from functools import cache
from typing import Any, get_args

import pytest
import torch
from hook_counter import hooked
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Genes
from search_spaces.cost import cost
from search_spaces.crnas.detector_cost import faster_rcnn_macs, mask_rcnn_macs
from search_spaces.crnas.zoo import ZOO
from search_spaces.detector_parts import mask_head
from search_spaces.errors import ConfigError
from search_spaces.families import family_of
from search_spaces.family import Level
from search_spaces.spinenet.detector_cost import mask_rcnn_cost
from search_spaces.spinenet.zoo import ZOO as SPINENETS
from trainers.detectors.catalog import DETECTORS, build_detector
from trainers.detectors.cost import HEADS, PYRAMIDS, Regions, count_detector
from trainers.detectors.detector import Detector
from trainers.recipes import DetectorRecipe, Pyramid

SIZE = (800, 1088)
C3_TO_P7: dict[str, Any] = {"levels": ("c3", "c4", "c5"), "extra_levels": 2, "head_convs": 4}
PUBLISHED_RULE = Regions(boxes=2000, masks=128)
RESNET152 = Architecture(
    family="crnas.resnet",
    settings=ZOO["resnet50"].settings,
    genes=Genes({"blocks": (3, 8, 36, 3), "dilations": (1,) * 50}),
)


def recipe(name: str, **changes: Any) -> DetectorRecipe:
    return DetectorRecipe(name=name, fpn_channels=256, **changes)  # type: ignore[arg-type]


# name, GMAC by our count, GMAC as the paper prints them (table 3)
MASK_RCNN = [
    ("mobilenetv2", 187.6, 189.5),
    ("resnet50", 259.7, 261.2),
    ("resnet101", 324.1, 325.9),
    ("scr_resnet50", 259.7, 261.0),
    ("scr_resnet101", 324.1, 325.8),
]


@pytest.mark.parametrize(("name", "ours", "published"), MASK_RCNN)
def test_mask_rcnn_of_crnas(name: str, ours: float, published: float) -> None:
    macs = mask_rcnn_macs(ZOO[name])
    assert macs.total / 1e9 == pytest.approx(published, rel=0.015)
    assert macs.total < published * 1e9, "what the paper counts besides is more, not less"
    assert macs.mask_head / 1e9 == pytest.approx(67.9, abs=0.06)
    assert macs.total - macs.mask_head == faster_rcnn_macs(ZOO[name]).total
    levels = dict(family_of(ZOO[name]).levels(ZOO[name]))
    if name == "mobilenetv2":
        # Counted before with C5 as it is before the 1280-wide convolution, and without that convolution.
        levels["c5"] = Level(320, 32)
        last = cost(ZOO[name], SIZE).macs - 4.847e9
        assert (mask_rcnn_macs(ZOO[name], levels=levels).total - last) / 1e9 == pytest.approx(ours, abs=0.06)
    else:
        assert macs.total / 1e9 == pytest.approx(ours, abs=0.06)


# name, side, keywords, parameters in millions, GMAC as printed
SPINENET_MASK_RCNN = [
    ("spinenet49s", 640, {"hidden": 512}, 13.9, 60.2),
    ("spinenet49", 640, {}, 40.8, 216.1),
    ("spinenet96", 1024, {}, 55.2, 315.0),
    ("spinenet143", 1280, {}, 79.2, 498.8),
    ("spinenet190", 1536, {"width": 384, "convs": 7}, 168.2, 1685.7),
]


@pytest.mark.parametrize(("name", "side", "head", "params", "gmac"), SPINENET_MASK_RCNN)
def test_mask_rcnn_of_spinenet(
    name: str, side: int, head: dict[str, int], params: float, gmac: float
) -> None:
    """1000 regions and 100 masks are within a hundredth of all five printed figures, and a little below each."""
    found = mask_rcnn_cost(SPINENETS[name], (side, side), **head).total
    assert found.params / 1e6 == pytest.approx(params, abs=0.06)
    assert 1.001 < gmac * 1e9 / found.macs < 1.01


# backbone, side, parameters in millions, GMAC as printed
RETINANETS = [
    (ZOO["resnet50"], 640, 34.0, 96.8),
    (ZOO["resnet101"], 1024, 53.1, 325.9),
    (RESNET152, 1280, 68.7, 630.5),
]


@pytest.mark.parametrize(("backbone", "side", "params", "gmac"), RETINANETS)
def test_retinanet_over_fpn_as_du_et_al_print_it(
    backbone: Architecture, side: int, params: float, gmac: float
) -> None:
    found = count_detector(backbone, recipe("retinanet", **C3_TO_P7), 91, (side, side)).total
    assert found.params / 1e6 == pytest.approx(params, rel=0.005)
    assert found.macs / 1e9 == pytest.approx(gmac, rel=0.005)


def test_spinenet49s_as_printed_has_endpoints_of_256_and_towers_of_128() -> None:
    wide = Architecture(
        family="spinenet",
        settings=Genes({**SPINENETS["spinenet49s"].settings, "endpoint": 256}),
        genes=SPINENETS["spinenet49s"].genes,
    )
    around = recipe(
        "retinanet", pyramid="none", levels=("p3", "p4", "p5", "p6", "p7"), head_convs=4, head_channels=128
    )
    found = count_detector(wide, around, 91, (640, 640)).total
    assert found.params / 1e6 == pytest.approx(12.0, rel=0.005)
    assert found.macs / 1e9 == pytest.approx(33.8, rel=0.005)


FASTER = {"extra_levels": 1, "head_convs": 1, "box_head": 1024}


@pytest.mark.parametrize(
    ("around", "params"),
    [
        (recipe("faster_rcnn", **FASTER), 41_755_286),
        (recipe("mask_rcnn", **FASTER), 44_401_393),
        (recipe("fcos", **C3_TO_P7), 32_269_600),
    ],
)
def test_parameters_are_torchvisions(around: DetectorRecipe, params: int) -> None:
    """``num_params`` of its COCO weights: 91 classes with background, the backbone's normalisation frozen."""
    classes = 91 if around.name == "fcos" else 90
    found = count_detector(ZOO["resnet50"], around, classes, SIZE).total.params
    found -= 2 * 26_560
    if around.name == "mask_rcnn":
        # Its mask head has biases where ours has normalisation.
        heads = [mask_head(256, 1, classes=91, normed=normed).params for normed in (True, False)]
        found += heads[1] - heads[0]
    assert found == params


def test_both_countings_of_a_two_stage_detector_agree() -> None:
    for name in ("resnet18", "resnet50", "mobilenetv2"):
        found = count_detector(ZOO[name], recipe("mask_rcnn", **FASTER), 80, SIZE, PUBLISHED_RULE)
        rule = mask_rcnn_macs(ZOO[name])
        assert {part: one.macs for part, one in found.parts.items()} == {
            "backbone": rule.backbone,
            "lateral": rule.lateral,
            "outputs": rule.outputs,
            "proposals": rule.rpn,
            "box head": rule.box_head,
            "mask head": rule.mask_head,
        }
    spinenet = SPINENETS["spinenet49"]
    around = recipe(
        "mask_rcnn",
        pyramid="none",
        levels=("p3", "p4", "p5", "p6", "p7"),
        head_convs=1,
        box_head=1024,
        box_convs=4,
        rcnn_norm=True,
    )
    found = count_detector(spinenet, around, 90, (640, 640), Regions(boxes=1000, masks=100))
    assert found.total == mask_rcnn_cost(spinenet, (640, 640)).total


@cache
def backbone_of(architecture: Architecture) -> nn.Module:
    """Built once for all detectors."""
    with torch.device("meta"):
        return family_of(architecture).build(architecture, seed=0)


def built(
    architecture: Architecture, around: DetectorRecipe, classes: int, size: tuple[int, int]
) -> Detector:
    """On the meta device: no weight is stored."""
    with torch.device("meta"):
        return build_detector(around, backbone_of(architecture), classes, size, seed=0).eval()


def counted(detector: Detector, size: tuple[int, int], regions: Regions) -> tuple[int, int]:
    """Parameters, and multiply-adds of every convolution and linear layer for one image on the meta device."""
    with torch.no_grad(), hooked(detector) as count:
        _pass(detector, torch.zeros(1, 3, *size, device="meta"), regions)
    return sum(one.numel() for one in detector.parameters()), count.macs


def _pass(detector: Any, images: Tensor, regions: Regions) -> None:
    """All layers once, with regions that nobody proposed."""
    maps = detector.backbone(images)
    if hasattr(detector, "head"):
        detector.head(list(maps.values()))
        return
    detector.rpn.head(list(maps.values()))
    heads, channels = detector.roi_heads, detector.backbone.out_channels
    pooled = torch.zeros(regions.boxes, channels, 7, 7, device="meta")
    for one in getattr(heads, "stages", [heads]):
        one.box_predictor(one.box_head(pooled))
    if hasattr(heads, "has_mask") and heads.has_mask():
        pooled = torch.zeros(regions.masks, channels, 14, 14, device="meta")
        heads.mask_predictor(heads.mask_head(pooled))


SMALL = Regions(boxes=37, masks=5)
BUILT = [
    ("resnet18", recipe("faster_rcnn", **FASTER)),
    ("resnet50", recipe("faster_rcnn", **FASTER)),
    ("resnet50", recipe("faster_rcnn", extra_levels=2, head_convs=2, box_convs=4)),
    ("resnet50", recipe("faster_rcnn", box_head=64, rcnn_norm=True)),
    ("resnext50", recipe("mask_rcnn", **FASTER, mask_convs=3, mask_channels=128)),
    ("resnet18", recipe("mask_rcnn", mask_convs=0, box_convs=1, rcnn_norm=True)),
    ("mobilenetv2", recipe("mask_rcnn", **FASTER)),
    ("resnet18", recipe("mask_rcnn", head_convs=2, box_convs=3, rcnn_norm=True, head_channels=24)),
    ("resnet50", recipe("faster_rcnn", rcnn_norm=True, head_channels=96)),
    ("resnet50", recipe("cascade_rcnn", **FASTER)),
    ("resnet18", recipe("cascade_rcnn", pyramid="pafpn", box_convs=2, rcnn_norm=True)),
    ("resnet50", recipe("fcos", **C3_TO_P7)),
    ("resnet50", recipe("fcos", pyramid="pafpn", **C3_TO_P7)),
    ("resnet18", recipe("mask_rcnn", pyramid="pafpn", **FASTER)),
    ("scr_resnet18", recipe("fcos", levels=("c2", "c4"), head_convs=2, shared_tower=True)),
    ("resnet18", recipe("fcos", head_convs=0)),
    ("resnet50", recipe("retinanet", **C3_TO_P7)),
    ("resnet18", recipe("retinanet", head_convs=2, head_channels=64, head_separable=True)),
]


@pytest.mark.parametrize(("name", "around"), BUILT)
@pytest.mark.parametrize("size", [(256, 352), (800, 1088)])
def test_what_is_counted_is_what_is_built(name: str, around: DetectorRecipe, size: tuple[int, int]) -> None:
    found = count_detector(ZOO[name], around, 7, size, SMALL)
    assert counted(built(ZOO[name], around, 7, size), size, SMALL) == (found.total.params, found.total.macs)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_counted_over_spinenet_is_what_is_built(name: str) -> None:
    around = recipe(name, pyramid="none", levels=("p3", "p4", "p5", "p6", "p7"), head_convs=2)
    architecture = SPINENETS["r0_sp53"]
    found = count_detector(architecture, around, 7, (256, 384), SMALL)
    assert counted(built(architecture, around, 7, (256, 384)), (256, 384), SMALL) == (
        found.total.params,
        found.total.macs,
    )


def test_a_cascade_is_two_more_heads_whose_boxes_are_of_no_class() -> None:
    plain = count_detector(ZOO["resnet50"], recipe("faster_rcnn", **FASTER), 80, SIZE, PUBLISHED_RULE)
    found = count_detector(ZOO["resnet50"], recipe("cascade_rcnn", **FASTER), 80, SIZE, PUBLISHED_RULE)
    # 2000 regions of 256 channels and 7x7 cells, 1024 and 1024 wide, 81 classes, 4 numbers in place of 324.
    head = 2000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 4))
    assert found.total.macs - plain.total.macs == 3 * head - plain.parts["box head"].macs
    assert found.parts["box head 2"].macs == head


def test_every_detector_and_pyramid_of_a_recipe_can_be_counted() -> None:
    for name in DETECTORS:
        assert name in HEADS
    assert set(PYRAMIDS) == set(get_args(Pyramid))


def test_regions_are_the_recipes_where_none_are_given() -> None:
    around = recipe("mask_rcnn", **FASTER, candidates=300, detections=20)
    found = count_detector(ZOO["resnet18"], around, 3, (256, 256))
    assert found.regions == Regions(boxes=300, masks=20)
    assert count_detector(ZOO["resnet18"], recipe("fcos"), 3, (256, 256)).regions is None


def test_what_cannot_be_built_cannot_be_counted() -> None:
    with pytest.raises(ConfigError, match=r"^detector\.levels: the backbone has no level \['p3'\]"):
        count_detector(ZOO["resnet18"], recipe("fcos", levels=("p3",)), 3, (256, 256))
    with pytest.raises(ConfigError, match=r"^detector\.fpn_channels: found 256, but .* c2 has 64 channels"):
        count_detector(ZOO["resnet18"], recipe("fcos", pyramid="none"), 3, (256, 256))
    own = DetectorRecipe(target="my_file.py:MyDetector")
    with pytest.raises(ConfigError, match=r"^detector: .*MyDetector is not in the catalog"):
        count_detector(ZOO["resnet18"], own, 3, (256, 256))
