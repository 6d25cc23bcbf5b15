"""The effective receptive field on networks small enough to know the answer."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.proxies.erf import calibrate_bn_on_noise, erf_at_random_init, measure_erf, noise
from search_spaces.architecture import Architecture, Genes
from search_spaces.cost import trf
from search_spaces.crnas.supernet import DilationSupernet
from search_spaces.families import family_of

SMALL = Architecture(
    family="crnas.resnet",
    settings=Genes(
        {"block": "basic", "widths": [8, 8, 8, 8], "stem": "small", "groups": 1, "width_per_group": 64}
    ),
    genes=Genes({"blocks": [1, 1, 1, 2], "dilations": [1, 2, 1, 3, 1]}),
)


class Box(nn.Module):
    """A 5x5 mean: the field of its centre is a uniform square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 5, padding=2, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c2": self.conv(images)}


def test_a_uniform_kernel_gives_a_uniform_square() -> None:
    (field,) = measure_erf(Box(), noise(2, (32, 48), seed=0)).values()
    assert field.box == (5, 5)
    assert field.radius == 5.0
    assert field.std == pytest.approx(np.std(np.arange(5)))  # variance 2 on each axis
    assert field.map.shape == (32, 48)
    assert field.map[16, 24] == pytest.approx(3.0)
    assert field.map.sum() == pytest.approx(75.0)


def test_a_level_that_sees_nothing_has_no_field() -> None:
    blind = Box()
    nn.init.zeros_(blind.conv.weight)
    (field,) = measure_erf(blind, noise(1, (32, 32), seed=0)).values()
    assert (field.std, field.radius, field.box) == (0.0, 0.0, (0, 0))


def test_the_gradient_box_is_the_theoretical_field() -> None:
    fields = erf_at_random_init(SMALL, seed=1, input_size=(256, 320), images=2)
    for level, side in trf(SMALL).items():
        assert fields[level].box == (min(side, 256), min(side, 320))
        assert 0 < fields[level].std < side


def test_the_seed_alone_decides() -> None:
    one, same, other = (
        erf_at_random_init(SMALL, seed=seed, input_size=(96, 96), images=1) for seed in (4, 4, 5)
    )
    assert all(np.array_equal(one[level].map, same[level].map) for level in one)
    assert not np.array_equal(one["c5"].map, other["c5"].map)


def test_measuring_leaves_the_backbone_as_it_was() -> None:
    backbone = family_of(SMALL).build(SMALL, seed=0).train()
    backbone.layer2.eval()  # type: ignore[union-attr, operator]
    modes = [module.training for module in backbone.modules()]
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    measure_erf(backbone, noise(1, (64, 64), seed=0))
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(weight.grad is None for weight in backbone.parameters())


def test_calibration_takes_the_statistics_of_the_batch() -> None:
    backbone = family_of(SMALL).build(SMALL, seed=0).eval()
    images = noise(2, (64, 64), seed=0)
    calibrate_bn_on_noise(backbone, images)
    assert not backbone.training
    assert {module.momentum for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    first = backbone.conv1(images)  # type: ignore[union-attr, operator]
    assert torch.allclose(backbone.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-5)  # type: ignore[union-attr, arg-type]
    assert torch.allclose(backbone.bn1.running_var, first.var((0, 2, 3)), rtol=1e-4)  # type: ignore[union-attr, arg-type]


def test_a_path_of_a_supernet_is_measured_as_its_stand_alone_network() -> None:
    supernet = DilationSupernet(SMALL, seed=2)
    supernet.set_path(SMALL)
    alone = family_of(SMALL).build(SMALL)
    alone.load_state_dict(supernet.slice(SMALL))
    images = noise(1, (96, 96), seed=3)
    theirs, ours = measure_erf(supernet, images), measure_erf(alone, images)
    for level, field in ours.items():
        assert np.allclose(theirs[level].map, field.map, atol=1e-6)
