"""Pooling with our gradient is torchvision's pooling."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from trainers.detectors.region_pooling import RegionPooling

SIZE = (96, 128)
STRIDES = {"c2": 4, "c3": 8, "c4": 16}


def made(kind: type[MultiScaleRoIAlign], names: list[str], side: int, samples: int = 2) -> MultiScaleRoIAlign:
    return kind(names, side, samples, canonical_scale=64, canonical_level=4)


def maps_of(names: list[str], *, images: int = 3, channels: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(images, channels, SIZE[0] // stride, SIZE[1] // stride, generator=generator)
        for name, stride in STRIDES.items()
        if name in names
    }


def boxes_of(counts: list[int], spread: float = 1.0) -> list[Tensor]:
    """Of all sizes from below a cell to the whole image; ``spread`` above 1 puts some outside."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in counts:
        middle = (torch.rand(count, 2, generator=generator) - 0.5) * spread + 0.5
        half = torch.exp(torch.rand(count, 2, generator=generator) * 5 - 1) / 2
        middle = middle * torch.tensor([SIZE[1], SIZE[0]])
        found.append(torch.cat([middle - half, middle + half], 1))
    return found


def pooled(
    layer: MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Regions, and the gradient of every map for a fixed gradient of the regions."""
    leaves = {name: one.clone().requires_grad_() for name, one in maps.items()}
    found = layer(leaves, boxes, [SIZE] * len(boxes))
    found.backward(torch.randn(found.shape, generator=torch.Generator().manual_seed(2)))
    return found.detach(), {
        name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in leaves.items()
    }


@pytest.mark.parametrize("names", [["c2"], ["c2", "c3", "c4"], ["c3", "c4"]])
@pytest.mark.parametrize(("side", "samples"), [(7, 2), (14, 2), (7, 1), (3, 4)])
@pytest.mark.parametrize("counts", [[40, 0, 25], [1, 1, 1], [0, 0, 0]])
@pytest.mark.parametrize("spread", [1.0, 1.6])
def test_values_and_gradients_are_torchvisions(
    names: list[str], side: int, samples: int, counts: list[int], spread: float
) -> None:
    maps, boxes = maps_of(names), boxes_of(counts, spread)
    ours, our_gradients = pooled(made(RegionPooling, names, side, samples), maps, boxes)
    theirs, their_gradients = pooled(made(MultiScaleRoIAlign, names, side, samples), maps, boxes)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for name in names:
        torch.testing.assert_close(our_gradients[name], their_gradients[name], rtol=1e-4, atol=2e-4)


def test_a_box_on_the_edge_and_one_far_outside() -> None:
    maps = maps_of(["c2"], images=1)
    boxes = [
        torch.tensor(
            [
                [0.0, 0, 128, 96],
                [-3, -3, -1, -1],
                [127.9, 95.9, 128, 96],
                [-50, -50, -20, -20],
                [120, 90, 180, 150],
            ]
        )
    ]
    ours, our_gradients = pooled(made(RegionPooling, ["c2"], 7), maps, boxes)
    theirs, their_gradients = pooled(made(MultiScaleRoIAlign, ["c2"], 7), maps, boxes)
    assert bool((theirs[3] == 0).all())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradients["c2"], their_gradients["c2"], rtol=1e-5, atol=1e-5)


def test_it_repeats_to_the_bit_with_any_number_of_threads() -> None:
    maps, boxes = maps_of(list(STRIDES)), boxes_of([200, 150, 90])
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(pooled(made(RegionPooling, list(STRIDES), 7), maps, boxes))
    finally:
        torch.set_num_threads(before)
    for found, gradients in runs[1:]:
        assert torch.equal(found, runs[0][0])
        assert all(torch.equal(one, runs[0][1][name]) for name, one in gradients.items())


def test_without_a_gradient_it_is_torchvisions_layer_to_the_bit() -> None:
    maps, boxes = maps_of(list(STRIDES)), boxes_of([30, 20, 10])
    with torch.no_grad():
        ours = made(RegionPooling, list(STRIDES), 7)(maps, boxes, [SIZE] * 3)
        theirs = made(MultiScaleRoIAlign, list(STRIDES), 7)(maps, boxes, [SIZE] * 3)
    assert torch.equal(ours, theirs)


def test_maps_that_are_not_pooled_get_no_gradient() -> None:
    names = ["c2", "c3"]
    maps = {name: one.requires_grad_() for name, one in maps_of(list(STRIDES)).items()}
    made(RegionPooling, names, 7)(maps, boxes_of([5, 5, 5]), [SIZE] * 3).sum().backward()
    assert maps["c4"].grad is None
    assert maps["c2"].grad is not None


def test_a_box_that_is_no_number_is_no_index_out_of_range() -> None:
    maps = {name: one.requires_grad_() for name, one in maps_of(list(STRIDES), images=1).items()}
    boxes = [torch.tensor([[float("nan")] * 4, [0.0, 0.0, 40.0, 40.0]])]
    found = made(RegionPooling, list(STRIDES), 7)(maps, boxes, [SIZE])
    found.sum().backward()
    assert found.shape == (2, 5, 7, 7)
