"""Whole RetinaNets as they are built, against the counts of the paper's networks and against the cost model.

Networks are built on torch's meta device: no weight is stored and no multiplication done, so that the largest,
of 164 million parameters and 1.9 tera multiply-adds, is counted in seconds.
"""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.families import family_of
from search_spaces.spinenet.detector_cost import retinanet_cost
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.detectors.retinanet import RetinaNet
from trainers.recipes import DetectorRecipe

# name, side, endpoint or None, convolutions, width or None, classes, parameters in millions, GMAC
DETECTORS = [
    ("spinenet49", 640, None, 4, None, 80, 28.3152, 83.337),
    ("spinenet49", 640, None, 4, None, 91, 28.5434, 85.282),
    ("spinenet49", 896, None, 4, None, 80, 28.3152, 163.341),
    ("spinenet49", 896, None, 4, None, 91, 28.5434, 167.152),
    ("spinenet96", 1024, None, 4, None, 80, 42.7467, 260.046),
    ("spinenet96", 1024, None, 4, None, 91, 42.9749, 265.024),
    ("spinenet143", 1280, None, 4, None, 80, 66.7313, 515.560),
    ("spinenet143", 1280, None, 4, None, 91, 66.9595, 523.338),
    ("spinenet190", 1280, None, 7, None, 80, 163.1811, 1866.103),
    ("spinenet190", 1280, None, 7, None, 91, 163.6374, 1881.660),
    ("spinenet49s", 640, None, 4, None, 80, 11.1518, 29.806),
    ("spinenet49s", 640, None, 4, None, 91, 11.2659, 30.779),
    ("spinenet49s", 640, 256, 4, 128, 91, 11.9446, 33.745),
    ("r0_sp53", 640, None, 4, None, 91, 26.0562, 94.770),
    ("r23_sp30", 640, None, 4, None, 91, 26.5109, 95.482),
    ("spinenet49_mobile", 384, None, 4, None, 91, 2.3376, 0.981),
    ("spinenet49s_mobile", 384, None, 4, None, 91, 1.0307, 0.496),
    ("spinenet49xs_mobile", 256, None, 4, None, 91, 0.8727, 0.166),
]


@cache
def backbone_of(architecture: Architecture) -> nn.Module:
    """Built once for all heads."""
    with torch.device("meta"):
        return family_of(architecture).build(architecture, seed=0)


def built(
    architecture: Architecture, side: int, *, classes: int, convs: int, width: int | None, separable: bool
) -> Detector:
    """On the meta device."""
    channels = {level.channels for level in family_of(architecture).levels(architecture).values()}
    recipe = DetectorRecipe(
        name="retinanet",
        pyramid="none",
        fpn_channels=channels.pop(),
        levels=("p3", "p4", "p5", "p6", "p7"),
        head_convs=convs,
        head_channels=width,
        head_separable=separable,
        anchor_scale=3.0,
    )
    with torch.device("meta"):
        backbone = backbone_of(architecture)
        return build_detector(recipe, backbone, classes, (side, side), seed=0).eval()


def counted(detector: Detector, side: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of all convolutions for one image."""
    assert isinstance(detector, RetinaNet)
    found = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        assert isinstance(module, nn.Conv2d)
        found += output[0].numel() * module.weight[0].numel()

    handles = [one.register_forward_hook(count) for one in detector.modules() if isinstance(one, nn.Conv2d)]
    with torch.no_grad():
        detector._outputs(torch.zeros(1, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return sum(one.numel() for one in detector.parameters()), found


@pytest.mark.parametrize(
    ("name", "side", "endpoint", "convs", "width", "classes", "params", "gmac"), DETECTORS
)
def test_whole_retinanets_as_they_are_built(
    name: str,
    side: int,
    endpoint: int | None,
    convs: int,
    width: int | None,
    classes: int,
    params: float,
    gmac: float,
) -> None:
    architecture = ZOO[name] if endpoint is None else with_settings(ZOO[name], {"endpoint": endpoint})
    mobile = name.endswith("_mobile")
    detector = built(architecture, side, classes=classes, convs=convs, width=width, separable=mobile)
    found = counted(detector, side)
    assert (round(found[0] / 1e6, 4), round(found[1] / 1e9, 3)) == (params, gmac)
    model = retinanet_cost(
        architecture, (side, side), classes=classes, width=width, convs=convs, separable=mobile
    ).total
    assert found == (model.params, model.macs)


def test_the_network_of_the_papers_search_as_it_is_built() -> None:
    architecture = proxy(ZOO["spinenet49"])
    detector = built(architecture, 512, classes=91, convs=4, width=None, separable=False)
    model = retinanet_cost(architecture, (512, 512))
    assert counted(detector, 512) == (model.total.params, model.total.macs)
    head = sum(one.numel() for name, one in detector.named_parameters() if name.startswith("head."))
    assert head == model.head.params == 793_879
