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
from trainers.detectors.pyramid import PAFPN, BackboneWithPyramid, ExtraConvs
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


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_coarser_maps_learn_in_half_precision_from_one_column(size: tuple[int, int]) -> None:
    """Gradients of bfloat16 are those of float32, whatever lay in the memory before (of NaN nothing may be read)."""
    torch.manual_seed(0)
    block = ExtraConvs(16, 2)
    maps = torch.randn(2, 16, *size)

    def gradients(*, half: bool) -> list[torch.Tensor]:
        block.zero_grad()
        for count in (64, 256, 1024, 4096, 16384):
            for _ in range(8):
                torch.full((count,), float("nan"))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            made, _ = block([maps], [], ["p5"])
        assert [tuple(one.shape[2:]) for one in made[1:]] == [(1, 1), (1, 1)]
        torch.stack([one.float().pow(2).sum() for one in made[1:]]).sum().backward()
        return [one.grad.clone() for one in block.parameters() if one.grad is not None]

    exact = gradients(half=False)
    for _ in range(5):
        for one, other in zip(gradients(half=True), exact, strict=True):
            torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))
