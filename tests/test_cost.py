"""Costs computed without a network equal those counted on the built one; wrong input is named."""

import subprocess
import sys

import pytest
import torch
from hook_counter import hooked
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_spaces.architecture import Architecture, Genes
from search_spaces.cost import Cost, cost, cost_by_stage, layer_costs, trf
from search_spaces.crnas.zoo import ZOO
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import FAMILIES, family_of
from search_spaces.family import ChainFamily, Layer

counts = st.integers(1, 3)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    family = draw(st.sampled_from([name for name in FAMILIES if name.startswith("crnas.")]))
    if family == "crnas.mobilenetv2":
        blocks = (draw(counts), draw(counts), draw(st.integers(2, 8)), draw(counts))
        fixed = {"stem": "imagenet", "width_multiplier": draw(st.sampled_from([0.35, 1.0, 1.4]))}
    else:
        blocks = (draw(counts), draw(counts), draw(counts), draw(counts))
        block = draw(st.sampled_from(["basic", "bottleneck"]))
        grouped = block == "bottleneck" and draw(st.booleans())
        fixed = {
            "block": block,
            "widths": [draw(st.sampled_from([16, 32, 48])) for _ in range(4)],
            "stem": draw(st.sampled_from(["imagenet", "ceil_pool", "small"])),
            "groups": 8 if grouped else 1,
            "width_per_group": 4 if grouped else 64,
        }
    dilations = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=sum(blocks), max_size=sum(blocks)))
    genes = Genes({"blocks": blocks, "dilations": dilations})
    return Architecture(family=family, settings=Genes(fixed), genes=genes)


def counted(network: nn.Module, size: tuple[int, int]) -> tuple[Cost, dict[str, torch.Size]]:
    """On the meta device, where nothing is computed."""
    with torch.no_grad(), hooked(network) as count:
        maps = network.eval()(torch.empty(1, 3, *size, device="meta"))
    params = sum(weight.numel() for weight in network.parameters())
    found = Cost(params=params, macs=count.macs, activations=count.activations)
    return found, {k: v.shape for k, v in maps.items()}


def check_against_the_built_network(architecture: Architecture, size: tuple[int, int]) -> None:
    family = family_of(architecture)
    with torch.device("meta"):
        network = family.build(architecture)
    found, shapes = counted(network, size)
    assert cost(architecture, size) == found
    levels = family.levels(architecture)
    assert dict(network.levels) == levels  # type: ignore[arg-type]
    assert shapes == {
        name: (1, level.channels, -(-size[0] // level.stride), -(-size[1] // level.stride))
        for name, level in levels.items()
    }
    assert {layer.name for layer in family.layers(architecture)} == {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d)
    }


@settings(max_examples=40, deadline=None)
@given(architectures(), st.integers(32, 130), st.integers(32, 130))
def test_cost_equals_that_of_the_built_network(architecture: Architecture, height: int, width: int) -> None:
    check_against_the_built_network(architecture, (height, width))


@pytest.mark.parametrize("name", ZOO)
def test_cost_of_the_zoo_equals_that_of_the_built_network(name: str) -> None:
    check_against_the_built_network(ZOO[name], (800, 1088))


@settings(max_examples=30, deadline=None)
@given(architectures())
def test_stages_add_up(architecture: Architecture) -> None:
    """To the whole, and each to the sum of its layers, which a family lists on its own."""
    stages = cost_by_stage(architecture, (97, 64))
    family = family_of(architecture)
    assert isinstance(family, ChainFamily)
    listed = dict.fromkeys(stages, Cost())
    for layer, spent in layer_costs(family.layers(architecture), (97, 64)):
        listed[layer.stage] += spent
    assert stages == listed
    assert list(stages) == ["stem", "c2", "c3", "c4", "c5"]
    assert sum(stages.values(), Cost()) == cost(architecture, (97, 64))


@settings(max_examples=30, deadline=None)
@given(architectures(), st.data())
def test_a_dilation_costs_nothing_and_widens_the_field_by_its_jump(
    architecture: Architecture, data: st.DataObject
) -> None:
    dilations = architecture.genes["dilations"]
    assert isinstance(dilations, tuple)
    index = data.draw(st.integers(0, len(dilations) - 1))

    def at(dilation: int) -> Architecture:
        changed = (*dilations[:index], dilation, *dilations[index + 1 :])
        genes = Genes({"blocks": architecture.genes["blocks"], "dilations": changed})
        return Architecture(family=architecture.family, settings=architecture.settings, genes=genes)

    narrow, wide = trf(at(1)), trf(at(3))
    assert cost(at(1), (64, 64)) == cost(at(3), (64, 64))
    blocks = architecture.genes["blocks"]
    assert isinstance(blocks, tuple)
    ends = [sum(blocks[: stage + 1]) for stage in range(4)]  # type: ignore[arg-type]
    stage = next(stage for stage, end in enumerate(ends) if index < end)
    # The dilated convolution of a first block reads the finer map; a basic block's second does not.
    first = index == (ends[stage - 1] if stage else 0)
    downsamples = stage > 0 or architecture.family == "crnas.mobilenetv2"
    halved = first and downsamples and architecture.settings.get("block") != "basic"
    jump = 4 * 2**stage // (2 if halved else 1)
    for level, name in enumerate(("c2", "c3", "c4", "c5")):
        assert wide[name] - narrow[name] == (2 * 2 * jump if level >= stage else 0)


def test_a_linear_layer_counts_its_weights_once() -> None:
    layer = Layer(name="fc", stage="head", kind="linear", inputs=10, outputs=4, bias=True)
    ((_, spent),) = layer_costs([layer], (32, 32))
    assert spent == Cost(params=44, macs=40, activations=4)


@pytest.mark.parametrize("size", [(31, 224), (224, 31), (0, 0)])
def test_a_small_input_is_named(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidArchitecture, match=rf"{size[0]}x{size[1]}.*at least 32"):
        cost(ZOO["resnet18"], size)


def changed(architecture: Architecture, part: str, **values: object) -> Architecture:
    data = architecture.to_dict()
    data[part] = {**data[part], **values}
    return Architecture.from_dict(data)


@pytest.mark.parametrize(
    ("name", "part", "values", "message"),
    [
        ("resnet18", "settings", {"block": "fancy"}, "settings.block.*'fancy'.*basic, bottleneck"),
        ("resnet18", "settings", {"stem": "none"}, "settings.stem.*'none'.*imagenet, ceil_pool, small"),
        ("resnet18", "settings", {"widths": [64, 128, 256]}, "widths.*four"),
        ("resnet18", "settings", {"widths": 64}, "widths.*lists"),
        ("resnet18", "settings", {"widths": [64, 0, 256, 512]}, r"widths\[1\].*found 0"),
        ("resnet18", "settings", {"groups": 32}, "basic block has groups=1"),
        ("resnext50", "settings", {"widths": [8, 16, 32, 64]}, "at least 16"),
        ("resnet18", "settings", {"colour": "red"}, "needed are exactly"),
        ("resnet18", "genes", {"kernel": 3}, "genes.*needed are exactly"),
        ("resnet18", "genes", {"blocks": [2, 2, 4]}, "four block counts"),
        ("resnet18", "genes", {"blocks": [2, 2, 2, "2"]}, r"blocks\[3\].*'2'"),
        ("resnet18", "genes", {"blocks": [2, 2, 2.0, 2]}, r"blocks\[2\].*2\.0"),
        ("resnet18", "genes", {"blocks": [2, 2, 0, 4]}, r"blocks\[2\].*found 0"),
        ("resnet18", "genes", {"dilations": [1] * 7}, "found 7 for blocks.*8 blocks"),
        ("resnet18", "genes", {"dilations": [1] * 7 + [4]}, r"allowed are \[1, 2, 3\]"),
        ("mobilenetv2", "settings", {"width_multiplier": 1}, "written with a point"),
        ("mobilenetv2", "settings", {"width_multiplier": -0.5}, "positive"),
        ("mobilenetv2", "settings", {"stem": "small"}, "settings.stem.*imagenet"),
        ("mobilenetv2", "genes", {"blocks": [2, 3, 1, 9]}, "at least 2 blocks"),
    ],
)
def test_bad_architectures_are_named(name: str, part: str, values: dict[str, object], message: str) -> None:
    architecture = changed(ZOO[name], part, **values)
    with pytest.raises(InvalidArchitecture, match=message):
        cost(architecture)
    with pytest.raises(InvalidArchitecture, match=message):
        family_of(architecture).build(architecture)


def test_an_unknown_family_or_version_is_named() -> None:
    plain = ZOO["resnet18"]
    foreign = Architecture(family="crnas.vgg", settings=plain.settings, genes=plain.genes)
    with pytest.raises(InvalidArchitecture, match=r"crnas\.vgg.*crnas\.mobilenetv2, crnas\.resnet"):
        cost(foreign)
    newer = Architecture(family=plain.family, version=2, settings=plain.settings, genes=plain.genes)
    with pytest.raises(InvalidArchitecture, match="version 2"):
        cost(newer)


def test_the_seed_alone_decides_the_weights() -> None:
    for name in ("resnet18", "mobilenetv2"):
        small = changed(
            ZOO[name],
            "settings",
            **({"widths": [8, 8, 8, 8]} if name == "resnet18" else {"width_multiplier": 0.1}),
        )
        family = family_of(small)
        one, same, other = (family.build(small, seed=seed).state_dict() for seed in (5, 5, 6))
        assert all(torch.equal(value, same[key]) for key, value in one.items())
        assert any(not torch.equal(value, other[key]) for key, value in one.items())


def test_costs_do_not_import_torch() -> None:
    program = (
        "import sys\n"
        "from search_spaces.cost import cost, trf\n"
        "from search_spaces.crnas.detector_cost import faster_rcnn_macs\n"
        "from search_spaces.crnas.zoo import ZOO\n"
        "[(cost(a), trf(a), faster_rcnn_macs(a)) for a in ZOO.values()]\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
