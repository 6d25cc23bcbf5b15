"""The classifier on top of SpineNet: its cost, its sum over levels, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.families import family_of
from search_spaces.spinenet.classifier import Classifier
from search_spaces.spinenet.detector_cost import classifier_cost
from search_spaces.spinenet.zoo import ZOO, proxy


class Levels(nn.Module):
    """Maps of given sides, as a backbone would return them."""

    def __init__(self, sides: dict[str, tuple[int, int]], channels: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.levels = dict.fromkeys(sides, (channels, 8))
        self.maps = {
            name: torch.rand(2, channels, *side, generator=generator) for name, side in sides.items()
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.maps


@pytest.mark.parametrize("name", ["spinenet49", "spinenet96", "spinenet143", "spinenet190"])
def test_counts_of_the_built_classifier_equal_the_analytic_ones(name: str) -> None:
    with torch.device("meta"):
        network = Classifier(family_of(ZOO[name]).build(ZOO[name]))
    multiply_adds = 0

    def count(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        nonlocal multiply_adds
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        cells = output.shape[-2] * output.shape[-1] if isinstance(layer, nn.Conv2d) else 1
        multiply_adds += layer.weight.numel() * cells

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    assert network.eval()(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1001)
    found = classifier_cost(ZOO[name], (224, 224))
    assert sum(weights.numel() for weights in network.parameters()) == found.params
    assert multiply_adds == found.macs


def test_levels_are_summed_from_coarse_to_fine() -> None:
    # The sides of 224 px, which do not divide.
    sides = {"p3": (28, 28), "p4": (14, 14), "p5": (7, 7), "p6": (4, 4), "p7": (2, 2)}
    body = Levels(sides)
    network = Classifier(body, 3, seed=1)
    total = body.maps["p7"]
    for name in ("p6", "p5", "p4", "p3"):
        total = functional.interpolate(total, size=sides[name], mode="nearest") + body.maps[name]
    expected = total.mean((2, 3)) / 5 @ network.linear.weight.T
    found = network(torch.empty(0))
    torch.testing.assert_close(found, expected)
    at_once = sum(
        functional.interpolate(found, size=(28, 28), mode="nearest") for found in body.maps.values()
    )
    assert not torch.allclose(total, at_once), "a sum at once takes other cells"


def test_a_narrow_classifier_learns_and_its_seed_decides_its_weights() -> None:
    small = proxy(ZOO["spinenet49"], width=0.0625, alpha=0.5, endpoint=8)
    one, other = (Classifier(family_of(small).build(small, seed=0), 5, seed=2) for _ in range(2))
    assert torch.equal(one.linear.weight, other.linear.weight)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    functional.cross_entropy(one(images), torch.tensor([0, 3])).backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in one.parameters())
    mobile = ZOO["spinenet49xs_mobile"]
    assert Classifier(family_of(mobile).build(mobile, seed=0), 7)(images).shape == (2, 7)


def test_what_cannot_be_classified_is_named() -> None:
    body = Levels({"p3": (4, 4), "p4": (2, 2)})
    with pytest.raises(ValueError, match="classes: found 0; allowed are integers from 1"):
        Classifier(body, 0)
    body.levels["p4"] = (8, 16)
    with pytest.raises(ValueError, match=r"found levels of .*'p3': 4, 'p4': 8.* one width"):
        Classifier(body)
