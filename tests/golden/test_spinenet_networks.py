"""Scale-permuted networks against numbers measured on independent implementations and printed by the paper."""

import pytest

from search_spaces.architecture import Architecture
from search_spaces.cost import cost, cost_by_stage
from search_spaces.spinenet.costs import block_costs, resample_costs
from search_spaces.spinenet.detector_cost import classifier_cost, retinanet_cost
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings

# name, parameters, GMAC by side of the input in pixels
BACKBONES = [
    ("spinenet49s", 9_089_215, {256: 1.972, 512: 7.888, 640: 12.325, 1024: 31.553, 1280: 49.301}),
    ("spinenet49", 21_831_488, {256: 4.522, 512: 18.088, 640: 28.262, 1024: 72.351, 1280: 113.048}),
    ("spinenet96", 36_262_976, {256: 7.441, 512: 29.764, 640: 46.506, 1024: 119.054, 1280: 186.022}),
    ("spinenet143", 60_247_616, {256: 11.810, 512: 47.242, 640: 73.815, 1024: 188.966, 1280: 295.259}),
    ("spinenet190", 126_587_664, {256: 24.839, 512: 99.357, 640: 155.246, 1024: 397.429, 1280: 620.983}),
    ("spinenet143l", 100_796_257, {1280: 491.007}),
    ("r0_sp53", 19_344_320, {640: 37.750}),
    ("spinenet49_mobile", 2_268_708, {}),
    ("spinenet49s_mobile", 975_678, {}),
    ("spinenet49xs_mobile", 842_456, {}),
]
# Part of SpineNet-49, parameters, GMAC at 640
PARTS = [
    ("conv1", 9_536, 0.963),
    ("stem", 145_408, 3.670),
    ("blocks", 14_290_688, 14.678),
    ("resamples", 6_203_648, 7.554),
    ("endpoints", 1_182_208, 1.396),
]
# Parameters of the two resamplings of blocks 2 to 16 of SpineNet-49
RESAMPLES = [
    (16960, 16960),
    (26240, 26240),
    (34944, 99584),
    (52352, 137472),
    (214016, 312320),
    (166144, 264448),
    (66304, 312320),
    (214016, 214016),
    (166144, 166144),
    (166144, 264448),
    (264448, 264448),
    (66688, 197888),
    (412160, 412160),
    (412160, 412160),
    (412160, 412160),
]
# Parameters of a block at width 1 and levels 2, 3 and from 4
BLOCKS = {
    "bottleneck": {2: 70_400, 3: 280_064, 4: 1_117_184},
    "residual": {2: 73_984, 3: 295_424, 4: 1_180_672},
}
# name, side, settings, head's keywords, parameters in millions, GMAC
DETECTORS = [
    ("spinenet49", 640, {}, {"classes": 80}, 28.3152, 83.337),
    ("spinenet49", 640, {}, {}, 28.5434, 85.282),
    ("spinenet49", 896, {}, {"classes": 80}, 28.3152, 163.341),
    ("spinenet49", 896, {}, {}, 28.5434, 167.152),
    ("spinenet96", 1024, {}, {"classes": 80}, 42.7467, 260.046),
    ("spinenet96", 1024, {}, {}, 42.9749, 265.024),
    ("spinenet143", 1280, {}, {"classes": 80}, 66.7313, 515.560),
    ("spinenet143", 1280, {}, {}, 66.9595, 523.338),
    ("spinenet190", 1280, {}, {"classes": 80, "convs": 7}, 163.1811, 1866.103),
    ("spinenet190", 1280, {}, {"convs": 7}, 163.6374, 1881.660),
    ("spinenet49s", 640, {}, {"classes": 80}, 11.1518, 29.806),
    ("spinenet49s", 640, {}, {}, 11.2659, 30.779),
    ("spinenet49s", 640, {"endpoint": 256}, {"width": 128}, 11.9446, 33.745),
    ("r0_sp53", 640, {}, {}, 26.0562, 94.770),
    ("r23_sp30", 640, {}, {}, 26.5109, 95.482),
    ("spinenet49_mobile", 384, {}, {"separable": True}, 2.3376, 0.981),
    ("spinenet49s_mobile", 384, {}, {"separable": True}, 1.0307, 0.496),
    ("spinenet49xs_mobile", 256, {}, {"separable": True}, 0.8727, 0.166),
]
# name, side, what the paper prints: parameters in millions, GMAC
PUBLISHED = [
    ("spinenet49", 640, 4, 28.5, 85.4),
    ("spinenet49", 896, 4, 28.5, 167.4),
    ("spinenet96", 1024, 4, 43.0, 265.4),
    ("spinenet143", 1280, 4, 66.9, 524.4),
    ("spinenet190", 1280, 7, 163.6, 1885.0),
]


def square(side: int) -> tuple[int, int]:
    return (side, side)


@pytest.mark.parametrize(("name", "params", "gmac"), BACKBONES)
def test_backbone_counts(name: str, params: int, gmac: dict[int, float]) -> None:
    assert cost(ZOO[name]).params == params
    for side, expected in gmac.items():
        # Half a digit and a little: 47.241494528 stands as 47.242 above, rounded twice.
        assert cost(ZOO[name], square(side)).macs / 1e9 == pytest.approx(expected, rel=0, abs=0.00051)


@pytest.mark.parametrize("name", ZOO)
def test_multiply_adds_grow_with_the_area(name: str) -> None:
    gates = cost(ZOO[name], square(256)).macs * 4 - cost(ZOO[name], square(512)).macs
    assert (gates > 0) == name.endswith("_mobile")
    assert cost(ZOO[name], square(256)).macs * 25 - cost(ZOO[name], square(1280)).macs == 8 * gates


def test_parts_of_spinenet49() -> None:
    found = cost_by_stage(ZOO["spinenet49"], square(640))
    assert [(name, part.params, round(part.macs / 1e9, 3)) for name, part in found.items()] == PARTS


def test_blocks_of_spinenet49_and_of_every_kind() -> None:
    for name in ("spinenet49", "r0_sp53", "r23_sp30"):
        shape = SPINENET.shape(ZOO[name])
        found = block_costs(shape, square(640))
        assert list(found) == list(range(len(shape.stem), len(shape.stem) + len(shape.blocks)))
        for block, part in zip(shape.blocks, found.values(), strict=True):
            assert part.params == BLOCKS[block.kind][min(block.level, 4)]


def test_resamplings_of_spinenet49() -> None:
    found = resample_costs(SPINENET.shape(ZOO["spinenet49"]), square(640))
    parents = ZOO["spinenet49"].genes["parents"]
    assert isinstance(parents, tuple)
    for place, (pair, expected) in enumerate(zip(parents, RESAMPLES, strict=True), start=2):
        assert tuple(found[parent, place].params for parent in pair) == expected  # type: ignore[index, union-attr]


@pytest.mark.parametrize(("name", "side", "settings", "head", "params", "gmac"), DETECTORS)
def test_whole_retinanets(
    name: str, side: int, settings: dict[str, int], head: dict[str, int], params: float, gmac: float
) -> None:
    found = retinanet_cost(with_settings(ZOO[name], settings), square(side), **head).total
    assert (round(found.params / 1e6, 4), round(found.macs / 1e9, 3)) == (params, gmac)


@pytest.mark.parametrize(
    ("name", "head", "params"),
    [
        ("spinenet49", {"classes": 80}, 6_483_700),
        ("spinenet49", {"classes": 91}, 6_711_895),
        ("spinenet49s", {"classes": 80}, 2_062_580),
        ("spinenet190", {"classes": 80, "convs": 7}, 36_593_396),
    ],
)
def test_heads(name: str, head: dict[str, int], params: int) -> None:
    assert retinanet_cost(ZOO[name], square(640), **head).head.params == params


@pytest.mark.parametrize(("name", "side", "convs", "params", "gmac"), PUBLISHED)
def test_published_retinanets(name: str, side: int, convs: int, params: float, gmac: float) -> None:
    found = retinanet_cost(ZOO[name], square(side), convs=convs).total
    assert found.params / 1e6 == pytest.approx(params, abs=0.06)
    # The printed figures hold more than the convolutions: between 0.1 and 0.2 % more.
    assert 1.001 < gmac * 1e9 / found.macs < 1.0022


@pytest.mark.parametrize(
    ("name", "params"),
    [("spinenet49", 22.09), ("spinenet96", 36.52), ("spinenet143", 60.50), ("spinenet190", 127.10)],
)
def test_classifiers(name: str, params: float) -> None:
    assert round(classifier_cost(ZOO[name]).params / 1e6, 2) == params


def test_the_network_of_the_papers_search() -> None:
    found = retinanet_cost(proxy(ZOO["spinenet49"]), square(512))
    assert found.backbone.params == 1_169_696
    assert round(found.backbone.macs / 1e9, 3) == 1.546
    assert found.head.params == 793_879
    assert round(found.head.macs / 1e9, 3) == 4.296


@pytest.mark.parametrize(("width", "params", "gmac"), [(0.25, 1_352_448, 0.105), (0.125, 362_432, 0.058)])
def test_a_network_for_a_cpu(width: float, params: int, gmac: float) -> None:
    small = small_spinenet49(width)
    found = retinanet_cost(small, square(128), classes=3, convs=1)
    assert found.backbone.params == params
    assert round(found.backbone.macs / 1e9, 3) == gmac
    if width == 0.25:
        assert found.head.params == 37_343
        assert round(found.head.macs / 1e9, 3) == 0.012


def small_spinenet49(width: float) -> Architecture:
    return proxy(ZOO["spinenet49"], width=width, alpha=0.5, endpoint=32)
