"""PAFPN against its definition, and where it cannot be built."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, relu

from nas.methods.hand_made import detector_cost
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError
from trainers.detectors.catalog import build_detector
from trainers.detectors.pyramid import PAFPN, BackboneWithPyramid
from trainers.recipes import DetectorRecipe

Backbones = Callable[..., nn.Module]
RECIPE = DetectorRecipe(name="fcos", pyramid="pafpn", fpn_channels=16)


def pyramid(recipe: DetectorRecipe, backbone: nn.Module) -> BackboneWithPyramid:
    return build_detector(recipe, backbone, 2, (64, 64), seed=0).backbone


def test_maps_are_those_of_the_definition(tiny_backbone: Backbones) -> None:
    body = pyramid(replace(RECIPE, extra_levels=1), tiny_backbone()).eval()
    fpn = pyramid(replace(RECIPE, pyramid="fpn"), tiny_backbone()).eval()
    both = body.fpn
    assert isinstance(both, PAFPN)
    fpn.load_state_dict(
        {name: value for name, value in body.state_dict().items() if name in fpn.state_dict()}
    )
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, coarse = body(images), fpn(images)
        expected = [coarse["c2"]]
        for down, merged, name in zip(both.down, both.merged, ("c3", "c4", "c5"), strict=True):
            assert isinstance(down, nn.Conv2d) and isinstance(merged, nn.Conv2d)
            step = relu(conv2d(expected[-1], down.weight, down.bias, stride=2, padding=1))
            expected.append(relu(conv2d(coarse[name] + step, merged.weight, merged.bias, padding=1)))
    assert list(found) == ["c2", "c3", "c4", "c5", "extra1"]
    for one, other in zip(found.values(), expected, strict=False):
        torch.testing.assert_close(one, other)
    assert both.extra is not None
    torch.testing.assert_close(found["extra1"], both.extra.convs[0](expected[-1]))


def test_the_way_back_is_counted_with_the_detector() -> None:
    named = get_architecture("resnet18")
    costs = [detector_cost(named, replace(RECIPE, pyramid=kind), 3, (128, 128)) for kind in ("fpn", "pafpn")]
    weights = 16 * 16 * 9
    cells = [(128 // stride) ** 2 for stride in (8, 16, 32)]
    assert costs[1].params - costs[0].params == 3 * 2 * (weights + 16)
    assert costs[1].macs - costs[0].macs == 2 * weights * sum(cells)


def test_levels_whose_strides_do_not_double_are_refused(tiny_backbone: Backbones) -> None:
    message = (
        r"detector\.levels: found \['c2', 'c4'\] of strides \[4, 16\], but the path of pafpn .*pyramid to fpn"
    )
    with pytest.raises(ConfigError, match=message):
        pyramid(replace(RECIPE, levels=("c2", "c4")), tiny_backbone())
    assert pyramid(replace(RECIPE, levels=("c4",)), tiny_backbone()).strides == (16,)
