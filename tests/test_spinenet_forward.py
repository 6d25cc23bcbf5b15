"""SpineNet joins what its edges compute; the result is that of every edge by itself.

In double, where rounding in another order stays far below what a wrong order would do.
"""

import copy
import random
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.spinenet.ablations import DAMAGES
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.network import SpineNet, replaceable
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings

BY_EDGES = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/spinenet_by_edges.py"))[
    "SpineNetByEdges"
]
SMALL = proxy(ZOO["spinenet49"], width=0.0625, alpha=0.5, endpoint=8)
R0 = proxy(ZOO["r0_sp53"], width=0.0625, alpha=0.5, endpoint=8)


def drawn(seed: int, changes: Mapping[str, Value]) -> Architecture:
    """A random graph; most have blocks that nothing reads and edges over many levels."""
    rng = random.Random(seed)
    levels = [rng.randint(2, 7) for _ in range(7)] + rng.sample(range(3, 8), 5)
    parents = [
        sorted(rng.sample(range(max(0, place - 5) if place < 9 else 0, place), 2)) for place in range(2, 14)
    ]
    genes = {
        "levels": levels,
        "types": [rng.choice(["bottleneck", "residual"]) for _ in levels],
        "parents": parents,
    }
    return replace(with_settings(SMALL, changes), genes=Genes(genes))


CASES = {
    "spinenet49": (SMALL, 128),
    "224 px": (SMALL, 224),
    "odd": (SMALL, 203),
    "r0_sp53": (R0, 160),
    "swish, alpha 1": (with_settings(R0, {"activation": "swish", "alpha": 1.0}), 128),
    "repeats, pool chain": (with_settings(SMALL, {"repeats": 2, "pool": "chain"}), 160),
    **{name: (damage(R0), 128) for name, damage in DAMAGES.items()},
    **{
        f"drawn {seed}": (drawn(seed, {"unconnected": rule}), side)
        for seed, rule, side in [
            (1, "published", 224),
            (2, "published", 128),
            (3, "connect", 96),
            (4, "connect", 256),
        ]
    },
}
"""Architecture and side of the image in px."""


def pair(architecture: Architecture) -> tuple[Any, Any]:
    """The network and the reference of equal weights, with normalisations that are not the identity."""
    torch.manual_seed(0)
    network, by_edges = (made(**SPINENET.arguments(architecture)).double() for made in (SpineNet, BY_EDGES))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0.0, 0.2)
    by_edges.load_state_dict(network.state_dict())
    return network, by_edges


def images(side: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64)


def step(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Forward and backward; a loss that no normalisation makes constant."""
    maps = network(x)
    generator = torch.Generator().manual_seed(5)
    terms = [
        (features * torch.randn(features.shape, generator=generator, dtype=features.dtype)).mean()
        for features in maps.values()
    ]
    torch.stack(terms).sum().backward()
    return maps  # type: ignore[no-any-return]


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """To 1e-6 of the largest value of each tensor; batches of few values amplify rounding, even that of doubles."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and value.isfinite().all(), name
        error = float((found[name] - value).detach().abs().max())
        assert error <= 1e-6 * float(value.detach().abs().max()) + 1e-9, name


def assert_same_step(network: nn.Module, by_edges: nn.Module, x: Tensor) -> None:
    """Outputs, gradients (none where the reference has none) and running statistics."""
    assert_equal(step(network, x), step(by_edges, x))
    gradients = [
        {name: weight.grad for name, weight in one.named_parameters() if weight.grad is not None}
        for one in (network, by_edges)
    ]
    assert_equal(*gradients)
    assert_equal(network.state_dict(), by_edges.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_outputs_gradients_and_statistics_are_those_of_edge_by_edge(name: str) -> None:
    architecture, side = CASES[name]
    network, by_edges = pair(architecture)
    before = copy.deepcopy(network.state_dict())
    assert_same_step(network.train(), by_edges.train(), images(side))
    moved = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
    assert moved and all(
        key.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked") for key in moved
    )
    with torch.no_grad():
        assert_equal(network.eval()(images(side)), by_edges.eval()(images(side)))


def test_float32_is_equal_up_to_rounding() -> None:
    network, by_edges = (one.float().eval() for one in pair(SMALL))
    with torch.no_grad():
        found, expected = network(images(128).float()), by_edges(images(128).float())
    for name, features in expected.items():
        assert float((found[name] - features).abs().max()) < 1e-5 * float(features.abs().max())


def test_bf16_autocast_rounds_about_as_much() -> None:
    network, by_edges = (one.float().eval() for one in pair(SMALL))
    with torch.no_grad():
        exact = by_edges(images(128).float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, other = network(images(128).float()), by_edges(images(128).float())
    for name, features in exact.items():
        errors = [float((one[name] - features).square().mean().sqrt()) for one in (found, other)]
        assert found[name].dtype == torch.bfloat16
        assert 0 < errors[0] < 2 * errors[1] < 0.2 * float(features.square().mean().sqrt())


def test_frozen_and_mixed_normalisations() -> None:
    for every in (1, 2):
        network, by_edges = pair(SMALL)
        for one in (network.train(), by_edges.train()):
            norms = [module for module in one.modules() if isinstance(module, nn.BatchNorm2d)]
            for norm in norms[::every]:
                norm.eval()
        assert_same_step(network, by_edges, images(128))


def test_cumulative_statistics_as_for_calibration() -> None:
    network, by_edges = pair(SMALL)
    for one in (network.train(), by_edges.train()):
        for module in one.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
    assert_same_step(network, by_edges, images(128))
    assert_same_step(network, by_edges, images(160))


def test_hooks_and_foreign_layers_are_called() -> None:
    network, by_edges = pair(SMALL)
    called: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        assert_equal(network.eval()(images(128)), by_edges.eval()(images(128)))
    names = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    assert sorted(called) == sorted(names)

    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network, by_edges = pair(SMALL)
    for one in (network, by_edges):
        layers = one.resamples[0][0]
        assert replaceable([(layers.conv1, layers.bn1)])
        layers.conv1.__class__ = Doubled
        assert not replaceable([(layers.conv1, layers.bn1)])
    assert_same_step(network.train(), by_edges.train(), images(128))


def test_a_map_of_one_value_has_no_variance_but_its_copies_may_be_normalised() -> None:
    # P7 is read upwards only, so no layer at 1x1 of its own is normalised in training but those of its block.
    network, by_edges = pair(SMALL)
    resample = network.resamples[8][1]
    assert resample.conv2 is None
    reduced = torch.randn(1, resample.conv3.in_channels, 1, 1, dtype=torch.float64)
    other = by_edges.resamples[8][1]
    spread = reduced.expand(-1, -1, 4, 4)
    torch.testing.assert_close(resample.train()(reduced, (4, 4)), other.bn3.train()(other.conv3(spread)))
    assert_equal(resample.state_dict(), other.state_dict())
    with torch.no_grad():
        assert_equal(network.eval()(images(64, 1)), by_edges.eval()(images(64, 1)))


def test_a_copy_is_a_network_of_its_own() -> None:
    network, _ = pair(SMALL)
    before = network.eval()(images(96))["p3"]
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(0.5)
    assert torch.equal(network(images(96))["p3"], before)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(images(96))["p3"], before)


def test_channels_last_is_a_layout_only() -> None:
    network, by_edges = pair(SMALL)
    network.to(memory_format=torch.channels_last).train()
    x = images(96).contiguous(memory_format=torch.channels_last)
    maps = network(x)
    assert all(features.is_contiguous(memory_format=torch.channels_last) for features in maps.values())
    assert_equal(maps, by_edges.train()(images(96)))


def test_it_is_one_graph() -> None:
    genes = {
        "levels": (3, 5, 4, 7, 6),
        "types": ("bottleneck",) * 5,
        "parents": ((0, 1), (1, 2), (1, 3), (2, 3), (4, 5)),
    }
    network, by_edges = pair(replace(SMALL, genes=Genes(genes)))
    exported = torch.export.export(network.eval(), (images(64, 1),)).module()
    with torch.no_grad():
        assert_equal(exported(images(64, 1)), by_edges.eval()(images(64, 1)))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_equal(compiled(images(64)), by_edges(images(64)))
    assert_equal(step(compiled.train(), images(256)), step(by_edges.train(), images(256)))
    assert_equal(*({name: w.grad for name, w in one.named_parameters()} for one in (network, by_edges)))
