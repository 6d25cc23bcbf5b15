"""Scores without training: by hand where they can be, and that they react to what they are made for."""

import math

import pytest
import torch

from nas.proxies.zero_cost import entropy, fields_for_boxes, naswot, synflow
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import CandidateFailed
from search_spaces.families import family_of
from search_spaces.randomness import seed_for

SIZE = (64, 64)


def network(*blocks: int, dilation: int = 1) -> Architecture:
    named = get_architecture("resnet18")
    return Architecture(
        family=named.family,
        version=named.version,
        settings=Genes({**named.settings, "widths": (8, 8, 16, 16), "stem": "small"}),
        genes=Genes({"blocks": blocks, "dilations": (dilation,) * sum(blocks)}),
    )


def images(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("one", [network(1, 1, 1, 1), get_architecture("mobilenetv2")], ids=["relu", "relu6"])
def test_naswot_is_the_determinant_of_the_codes(one: Architecture, layout: torch.memory_format) -> None:
    backbone = family_of(one).build(one, seed=seed_for(0, "weights")).train()
    codes: list[torch.Tensor] = []
    for module in backbone.modules():
        if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6):
            module.register_forward_hook(lambda _, __, out: codes.append((out > 0).flatten(1)))
    # Rounding depends on the layout, and a few ReLUs on rounding.
    seen = images(3).contiguous(memory_format=layout)
    with torch.no_grad():
        backbone(seen)
    on = torch.cat(codes, dim=1)
    kernel = torch.tensor([[(a == b).sum().item() for b in on] for a in on], dtype=torch.float64)
    assert naswot(one, seen) == pytest.approx(float(torch.logdet(kernel)), rel=1e-9)


def test_naswot_of_equal_images_says_why_it_cannot() -> None:
    with pytest.raises(CandidateFailed, match="two images switch every unit alike"):
        naswot(network(1, 1, 1, 1), images(1).repeat(2, 1, 1, 1))


def test_synflow_counts_paths() -> None:
    """Of a network of linear layers the flow through each layer is the output for an input of ones (Tanaka, eq. 4)."""
    one = network(1, 1, 1, 1)
    backbone = family_of(one).build(one, seed=seed_for(0, "weights")).double().eval()
    for value in backbone.parameters():
        value.data = value.data.abs() if value.dim() > 1 else torch.zeros_like(value)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, inputs, __: inputs[0])
    total = sum(level.sum() for level in backbone(torch.ones(1, 3, *SIZE, dtype=torch.float64)).values())
    assert isinstance(total, torch.Tensor)
    # Each map counts once for every layer that makes it, so the flow lies between one and all layers' worth.
    layers = sum(value.dim() > 1 for value in backbone.parameters())
    assert math.log(float(total.detach())) < synflow(one, SIZE) < math.log(layers * float(total.detach()))


@pytest.mark.parametrize("score", [lambda one: synflow(one, SIZE), lambda one: entropy(one, SIZE)])
def test_more_layers_score_higher(score: object) -> None:
    assert callable(score)
    found = [score(network(1, 1, 1, 1)), score(network(1, 1, 1, 2)), score(network(2, 2, 2, 2))]
    assert found == sorted(found) and len(set(found)) == 3
    assert score(network(1, 1, 1, 1)) == found[0], "the same in every call"


def test_entropy_is_a_function_of_its_seed() -> None:
    one = network(1, 1, 1, 1)
    assert entropy(one, SIZE, repeats=2) == entropy(one, SIZE, repeats=2)
    assert entropy(one, SIZE) != entropy(one, SIZE, seed=1)


def test_fields_like_the_boxes_score_highest() -> None:
    from nas.proxies.erf import erf_at_random_init

    one = network(1, 1, 1, 1)
    fields = erf_at_random_init(one, input_size=(128, 128), images=2)
    own = [4.0 * field.std for field in fields.values()]
    assert fields_for_boxes(one, own, (128, 128)) == pytest.approx(0.0)
    assert fields_for_boxes(one, [8.0 * max(own)], (128, 128)) == pytest.approx(-3.0)
    with pytest.raises(CandidateFailed, match="needs boxes of a positive side"):
        fields_for_boxes(one, [], (128, 128))
