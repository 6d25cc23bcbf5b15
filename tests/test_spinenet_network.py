"""Scale-permuted networks as built: they compute what the paper says, and cost what is said of them."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.cost import Cost, cost, trf
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.spinenet.ablations import DAMAGES, FISH, HOURGLASS, fish, hourglass
from search_spaces.spinenet.costs import BASE_WIDTHS, MOBILE_WIDTHS, resample_costs
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.mobile import WIDTHS as MOBILE_NETWORK_WIDTHS
from search_spaces.spinenet.network import WIDTHS, Bottleneck, Residual, SpineNet, drop_branch, resized
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings

SMALL = proxy(ZOO["spinenet49"], width=0.0625, alpha=0.5, endpoint=8)
SMALL_MOBILE = with_settings(ZOO["spinenet49_mobile"], {"filter_size_scale": 0.25, "endpoint": 8})


def drawn(seed: int, base: Architecture, changes: Mapping[str, Value] = {}, blocks: int = 10) -> Architecture:
    """A random graph with the settings of another; most have blocks that nothing reads."""
    rng = random.Random(seed)
    stem = len(family_of(base).shape(base).stem)  # type: ignore[attr-defined]
    levels = [rng.randint(1, 7) for _ in range(blocks)] + rng.sample(range(3, 8), 5)
    parents = [
        sorted(rng.sample(range(max(0, place - 5) if place < stem + blocks else 0, place), 2))
        for place in range(stem, stem + blocks + 5)
    ]
    genes: dict[str, Any] = {"levels": levels, "parents": parents}
    if base.family == "spinenet":
        genes["types"] = [rng.choice(["bottleneck", "residual"]) for _ in levels]
    return replace(with_settings(base, changes), genes=Genes(genes))


def built(architecture: Architecture) -> Any:
    return family_of(architecture).build(architecture, seed=1)


def on_meta(architecture: Architecture) -> nn.Module:
    with torch.device("meta"):
        return family_of(architecture).build(architecture)


def counted(network: nn.Module, size: tuple[int, int]) -> tuple[Cost, dict[str, torch.Size]]:
    """Hooks on every convolution; on the meta device nothing is computed."""
    macs, activations = 0, 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs, activations
        assert isinstance(layer, nn.Conv2d)
        macs += output.numel() * layer.weight[0].numel()
        activations += output.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        maps = network.eval()(torch.empty(1, 3, *size, device="meta"))
    params = sum(weight.numel() for weight in network.parameters())
    return Cost(params=params, macs=macs, activations=activations), {k: v.shape for k, v in maps.items()}


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


# --- costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_cost_of_the_zoo_equals_that_of_the_built_network(name: str) -> None:
    network = on_meta(ZOO[name])
    found, shapes = counted(network, (640, 896))
    assert cost(ZOO[name], (640, 896)) == found
    levels = family_of(ZOO[name]).levels(ZOO[name])
    assert dict(network.levels) == levels  # type: ignore[arg-type]
    assert shapes == {
        name: (1, level.channels, 640 // level.stride, 896 // level.stride) for name, level in levels.items()
    }


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["spinenet49", "r23_sp30", "spinenet49_mobile"]),
    st.sampled_from([0.25, 0.65, 1.3]),
    st.sampled_from([0.3, 1.0]),
    st.integers(1, 3),
    st.sampled_from(["published", "connect"]),
    st.sampled_from(["single", "chain"]),
    st.tuples(st.integers(32, 300), st.integers(32, 300)),
)
def test_cost_of_any_graph_equals_that_of_the_built_network(
    seed: int,
    base: str,
    scale: float,
    alpha: float,
    repeats: int,
    unconnected: str,
    pool: str,
    size: tuple[int, int],
) -> None:
    changes: dict[str, Value] = {
        "filter_size_scale": scale,
        "repeats": repeats,
        "endpoint": 24,
        "unconnected": unconnected,
    }
    if not base.endswith("_mobile"):
        changes |= {"alpha": alpha, "pool": pool}
    architecture = drawn(seed, ZOO[base], changes)
    found, shapes = counted(on_meta(architecture), size)
    assert cost(architecture, size) == found
    assert shapes == {
        f"p{level}": (1, 24, -(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(3, 8)
    }


def test_widths_of_costs_are_those_of_the_networks() -> None:
    assert dict(enumerate(BASE_WIDTHS[1:], start=1)) == WIDTHS
    assert dict(enumerate(MOBILE_WIDTHS)) == MOBILE_NETWORK_WIDTHS


def test_a_cost_is_a_thousand_times_faster_than_building_and_counting() -> None:
    architectures = [drawn(seed, ZOO["spinenet49"]) for seed in range(1000)]
    # Processor time, for others may share the machine; of ten parts the quickest, for caches are cold in the first.
    kept, parts = 0, []
    for first in range(0, 1000, 100):
        start = time.process_time()
        kept += sum(cost(one, (640, 640)).macs < 28e9 for one in architectures[first : first + 100])
        parts.append((time.process_time() - start) / 100)
    assert 0 < kept < 1000
    assert min(parts) < 1e-3
    start = time.process_time()
    counted(on_meta(ZOO["spinenet49"]), (640, 640))
    assert time.process_time() - start > 1000 * min(parts)


@pytest.mark.parametrize("side", [31, 0])
def test_a_small_input_is_named(side: int) -> None:
    with pytest.raises(InvalidArchitecture, match="at least 32 px"):
        cost(SMALL, (side, 64))


# --- fields --------------------------------------------------------------------------------------------------


def averaging(network: nn.Module) -> nn.Module:
    """Max-pooling passes its gradient to one cell of a window only; the mean has the same window."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return network


def test_fields_are_what_a_gradient_reaches() -> None:
    genes = Genes(
        {
            "levels": (5, 2, 7, 5, 3, 6, 4),
            "types": (
                "residual",
                "bottleneck",
                "bottleneck",
                "residual",
                "bottleneck",
                "residual",
                "bottleneck",
            ),
            "parents": ((0, 1), (1, 2), (0, 3), (1, 3), (3, 4), (3, 6), (2, 6)),
        }
    )
    for pool in ("single", "chain"):
        changes: dict[str, Value] = {"filter_size_scale": 0.05, "alpha": 1.0, "endpoint": 1, "pool": pool}
        architecture = replace(with_settings(ZOO["spinenet49"], changes), genes=genes)
        network = averaging(built(architecture)).eval()
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(0.1 if weight.ndim > 1 else 1.0)
        image = torch.rand(1, 3, 2048, 16, requires_grad=True)
        maps = network(image)
        for level, expected in trf(architecture).items():
            stride, spans = network.levels[level][1], []
            for row in range(128 // stride):
                cell = maps[level][0, 0, maps[level].shape[2] // 2 + row, 0]
                (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
                rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
                spans.append(int(rows[-1] - rows[0]) + 1)
            assert max(spans) == expected, level


def test_fields_of_the_zoo() -> None:
    for name in ("spinenet49", "r0_sp53", "r23_sp30", "spinenet49_mobile"):
        fields = trf(ZOO[name])
        assert list(fields) == ["p3", "p4", "p5", "p6", "p7"]
        assert trf(with_settings(ZOO[name], {"repeats": 2}))["p7"] > fields["p7"]


# --- forward -------------------------------------------------------------------------------------------------


def reference(network: Any, architecture: Architecture, image: Tensor) -> tuple[dict[str, Tensor], list[int]]:
    """SpineNet step by step as its authors write it, out-degrees counted on the way; with a network's weights."""
    genes, alpha_pool = architecture.genes, architecture.settings["pool"]
    blocks = list(zip(genes["levels"], genes["types"], genes["parents"], strict=True))  # type: ignore[arg-type]

    def conv(x: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, act: bool = True) -> Tensor:
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        x = functional.conv2d(x, convolution.weight, stride=stride, padding=kernel // 2)
        x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
        return x.relu() if act else x

    x = conv(image, network.conv1, network.bn1)
    feats, degrees = [functional.max_pool2d(x, 3, 2, 1)], [0]
    for group in network.stem:
        feats.append(group(feats[-1]))
        degrees.append(0)
    feats, degrees = feats[1:], degrees[1:]
    at = [*architecture.settings["stem"], *genes["levels"]]  # type: ignore[misc]
    outputs: dict[str, Tensor] = {}
    for index, (level, kind, parents) in enumerate(blocks):
        size = (-(-image.shape[2] // 2**level), -(-image.shape[3] // 2**level))
        x = torch.zeros(())
        for parent, layers in zip(parents, network.resamples[index], strict=True):
            y = conv(feats[parent], layers.conv1, layers.bn1)
            factor = 2 ** (level - at[parent])
            if factor > 1:
                y = conv(y, layers.conv2, layers.bn2)
                if alpha_pool == "single" and factor > 2:
                    kernel = 3 if factor == 4 else 5
                    y = functional.max_pool2d(y, kernel, factor // 2, kernel // 2)
                while y.shape[2] > size[0]:
                    y = functional.max_pool2d(y, 3, 2, 1)
            rows = torch.arange(size[0]) * y.shape[2] // size[0]
            columns = torch.arange(size[1]) * y.shape[3] // size[1]
            x = x + conv(y[:, :, rows][:, :, :, columns], layers.conv3, layers.bn3, act=False)
            degrees[parent] += 1
        if index >= len(blocks) - 5:
            for earlier, feat in enumerate(feats):
                if degrees[earlier] == 0 and feat.shape == x.shape:
                    x = x + feat
                    degrees[earlier] += 1
        x = x.relu()
        for block in network.blocks[index]:
            y = conv(x, block.conv1, block.bn1)
            y = conv(y, block.conv2, block.bn2, act=kind == "bottleneck")
            if kind == "bottleneck":
                y = conv(y, block.conv3, block.bn3, act=False)
            x = (x + y).relu()
        feats.append(x)
        degrees.append(0)
        if index >= len(blocks) - 5:
            outputs[f"p{level}"] = conv(x, *list(network.endpoints[f"p{level}"])[:2])
    return outputs, degrees


@pytest.mark.parametrize("pool", ["single", "chain"])
@pytest.mark.parametrize(
    ("seed", "side"), [(None, 256), (None, 224), (None, 200), (1, 256), (2, 224), (3, 256)]
)
def test_forward_equals_the_papers_steps(seed: int | None, side: int, pool: str) -> None:
    base = with_settings(SMALL, {"pool": pool, "repeats": 2 if seed == 1 else 1})
    architecture = base if seed is None else drawn(seed, base)
    # In double, because the network computes in another order than the paper and rounds elsewhere.
    network = built(architecture).double().eval()
    with torch.no_grad():
        found = network(images(side).double())
        expected, degrees = reference(network, architecture, images(side).double())
    assert list(found) == ["p3", "p4", "p5", "p6", "p7"]
    for name, features in found.items():
        torch.testing.assert_close(features, expected[name], rtol=1e-9, atol=1e-9)
    if seed is None:
        assert [place for place, degree in enumerate(degrees) if degree == 0] == [13, 15, 16]


@pytest.mark.parametrize(
    ("name", "before", "merged"),
    [
        ("spinenet49", [11, 13, 15, 16], {14: (11,)}),
        ("r0_sp53", [11, 12, 14, 15, 16], {13: (11,)}),
        ("spinenet49_mobile", [12, 14, 16, 17], {15: (12,)}),
        ("r23_sp30", [12, 15, 16], {}),
    ],
)
def test_blocks_that_nothing_reads(name: str, before: list[int], merged: dict[int, tuple[int, ...]]) -> None:
    family: Any = family_of(ZOO[name])
    graph, shape = family.graph(ZOO[name], window=5), family.shape(ZOO[name])
    assert [place for place, degree in enumerate(graph.out_degrees()) if degree == 0] == before
    found = {place: block.merged for place, block in enumerate(shape.blocks, len(shape.stem)) if block.merged}
    assert found == merged
    assert family.dead(ZOO[name]) == ()
    assert family.shape(with_settings(ZOO[name], {"unconnected": "connect"})) == shape


@pytest.mark.parametrize("architecture", [SMALL, SMALL_MOBILE], ids=["spinenet", "mobile"])
@pytest.mark.parametrize(
    ("side", "sides"), [(64, [8, 4, 2, 1, 1]), (224, [28, 14, 7, 4, 2]), (128, [16, 8, 4, 2, 1])]
)
def test_sides_that_do_not_divide(architecture: Architecture, side: int, sides: list[int]) -> None:
    network = built(architecture)
    maps = network(images(side))
    assert [features.shape for features in maps.values()] == [(2, 8, one, one) for one in sides]


def test_up_sampling_repeats_the_nearest_cell() -> None:
    row = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]])
    assert resized(row, (1, 8)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resized(row, (1, 7)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert resized(row, (1, 4)) is row


def test_single_and_chained_pooling_differ_in_values_only() -> None:
    single, chain = built(SMALL).eval(), built(with_settings(SMALL, {"pool": "chain"})).eval()
    chain.load_state_dict(single.state_dict())
    assert cost(SMALL, (256, 256)) == cost(with_settings(SMALL, {"pool": "chain"}), (256, 256))
    with torch.no_grad():
        one, other = single(images(256)), chain(images(256))
    assert {name: features.shape for name, features in one.items()} == {
        name: features.shape for name, features in other.items()
    }
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("spinenet49", ["stem.0.0"]),
        ("spinenet190", ["stem.0.0"]),
        ("r23_sp30", ["stem.0.0", "stem.2.0", "stem.4.0", "stem.6.0"]),
    ],
)
def test_shortcuts_are_identities_but_where_the_stem_changes(base: str, names: list[str]) -> None:
    blocks = {
        name: block
        for name, block in on_meta(ZOO[base]).named_modules()
        if isinstance(block, Bottleneck | Residual)
    }
    assert [name for name, block in blocks.items() if block.downsample is not None] == names


def test_repeats_leave_the_resamplings() -> None:
    for name in ("spinenet49", "spinenet49_mobile"):
        family: Any = family_of(ZOO[name])
        twice = with_settings(ZOO[name], {"repeats": 2})
        once = resample_costs(family.shape(ZOO[name]), (640, 640))
        assert resample_costs(family.shape(twice), (640, 640)) == once
        one, two = on_meta(ZOO[name]).state_dict(), on_meta(twice).state_dict()
        kept = {key: value.shape for key, value in two.items() if key.startswith("resamples")}
        assert kept == {key: value.shape for key, value in one.items() if key.startswith("resamples")}


def test_swish_and_hard_variants_change_values_only() -> None:
    changes: list[tuple[Architecture, dict[str, Value]]] = [
        (SMALL, {"activation": "swish"}),
        (SMALL_MOBILE, {"activation": "hswish"}),
        (SMALL_MOBILE, {"gate": "hard_sigmoid"}),
    ]
    for base, change in changes:
        other = with_settings(base, change)
        assert cost(other, (128, 128)) == cost(base, (128, 128))
        with torch.no_grad():
            maps, changed = built(base).eval()(images(128)), built(other).eval()(images(128))
        assert all(not torch.allclose(maps[name], changed[name]) for name in maps)


# --- training ------------------------------------------------------------------------------------------------


def test_stochastic_depth_is_for_training_only() -> None:
    for base in (SMALL, SMALL_MOBILE):
        network = built(base)
        plain = network.eval()(images(128))
        network.set_drop_path(0.6)
        rates = [block.drop_path for group in network.blocks for block in group]
        assert rates == pytest.approx([0.6 * (index + 1) / len(rates) for index in range(len(rates))])
        assert {block.drop_path for group in network.stem for block in group} == {0.0}
        assert all(torch.equal(features, plain[name]) for name, features in network(images(128)).items())
        network.train()
        with torch.no_grad():
            one, other = network(images(128)), network(images(128))
        assert not torch.equal(one["p3"], other["p3"])
        with pytest.raises(ValueError, match="from 0 to below 1"):
            network.set_drop_path(1.0)
    assert SpineNet(**SPINENET.arguments(SMALL), drop_path=0.2).blocks[-1][0].drop_path == pytest.approx(0.2)  # type: ignore[index]


def test_a_dropped_branch_keeps_its_mean() -> None:
    torch.manual_seed(0)
    found = drop_branch(torch.ones(20_000, 1, 1, 1), 0.25).flatten()
    assert found.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("seed", [None, *range(6)])
@pytest.mark.parametrize("base", [SMALL, SMALL_MOBILE], ids=["spinenet", "mobile"])
def test_gradient_reaches_all_but_dead_blocks(base: Architecture, seed: int | None) -> None:
    base = with_settings(base, {"activation": "swish"})
    for unconnected in ("published", "connect"):
        architecture = with_settings(
            base if seed is None else drawn(seed, base), {"unconnected": unconnected}
        )
        family: Any = family_of(architecture)
        dead, stem = family.dead(architecture), len(family.shape(architecture).stem)
        assert not (dead and unconnected == "connect")
        network = built(architecture).eval()
        torch.stack([features.square().mean() for features in network(images(256)).values()]).sum().backward()
        without = {
            stem + int(name.split(".")[1])
            for name, weight in network.named_parameters()
            if weight.grad is None
        }
        assert without == set(dead)
        for name, weight in network.named_parameters():
            assert weight.grad is None or weight.grad.abs().sum() > 0, name


def test_random_graphs_have_dead_blocks_by_the_published_rule() -> None:
    dead = [SPINENET.dead(drawn(seed, SMALL)) for seed in range(6)]
    assert sum(map(bool, dead)) >= 2


def test_a_dead_block_costs_but_is_resampled_in_when_connected() -> None:
    genes = dict(ZOO["spinenet49"].genes)
    types = list(genes["types"])  # type: ignore[arg-type]
    types[9] = "residual"
    published = replace(ZOO["spinenet49"], genes=Genes({**genes, "types": types}))
    assert SPINENET.dead(published) == (11,)
    connected = with_settings(published, {"unconnected": "connect"})
    assert SPINENET.dead(connected) == ()
    assert SPINENET.shape(connected).blocks[14 - 2].parents == (7, 12, 11)
    more = cost(connected).params - cost(published).params
    assert more == resample_costs(SPINENET.shape(connected), (224, 224))[11, 14].params


@pytest.mark.parametrize("name", ["spinenet49", "spinenet49_mobile"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    small = SMALL if name == "spinenet49" else SMALL_MOBILE
    one, same, other = (family_of(small).build(small, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


# --- ablations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["r0_sp53", "spinenet49_mobile"])
def test_damage_keeps_the_resamplings_of_kept_links(name: str, damage: str) -> None:
    family: Any = family_of(ZOO[name])
    damaged = DAMAGES[damage](ZOO[name])
    before = resample_costs(family.shape(ZOO[name]), (640, 640))
    after = resample_costs(family.shape(damaged), (640, 640))
    assert len(after) == len(before) // 2
    if damage != "chain":
        pick = min if damage == "drop_short_range" else max
        assert all(after[link] == before[link] for link in after)
        for place in range(2, 17):
            kept = [parent for parent, child in after if child == place]
            assert kept == [pick(parent for parent, child in before if child == place)]
    else:
        assert set(after) == {(place - 1, place) for _, place in after}
    found, _ = counted(on_meta(damaged), (256, 256))
    assert cost(damaged, (256, 256)) == found


def test_fixed_orders_have_the_blocks_of_r0_sp53() -> None:
    for order, levels in ((hourglass, HOURGLASS), (fish, FISH)):
        found = order(ZOO["r0_sp53"])
        assert found.genes["levels"] == levels
        for part in (slice(None, 10), slice(10, None)):
            assert sorted(levels[part]) == sorted(ZOO["r0_sp53"].genes["levels"][part])  # type: ignore[index, arg-type, type-var]
        shape, intact = SPINENET.shape(found), SPINENET.shape(ZOO["r0_sp53"])
        assert sorted(block.level for block in shape.blocks) == sorted(block.level for block in intact.blocks)
        assert SPINENET.dead(found) == ()
        assert found.settings == ZOO["r0_sp53"].settings
