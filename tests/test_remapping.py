"""Which block gives its weights to which: FNA's rule, counted by hand, and what follows for whole networks."""

from dataclasses import replace

import pytest

from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import ZOO
from search_spaces.crnas.remapping import block_sources
from search_spaces.errors import ConfigError


def allocated(name: str, *blocks: int) -> Architecture:
    return replace(ZOO[name], genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "resnext50", "mobilenetv2"])
def test_in_the_same_allocation_every_block_is_its_own_source(name: str) -> None:
    network = ZOO[name]
    found = block_sources(network, network)
    counts = network.genes["blocks"]
    assert isinstance(counts, tuple)
    assert len(found) == sum(int(str(one)) for one in counts) + (2 if name == "mobilenetv2" else 0)
    assert all(block == source for block, source in found.items())


def test_a_longer_stage_repeats_its_last_block_and_a_shorter_one_drops_it() -> None:
    found = block_sources(allocated("resnet18", 2, 2, 2, 2), allocated("resnet18", 1, 1, 2, 4))
    assert found == {
        "layer1.0": "layer1.0",
        "layer2.0": "layer2.0",
        "layer3.0": "layer3.0",
        "layer3.1": "layer3.1",
        "layer4.0": "layer4.0",
        "layer4.1": "layer4.1",
        "layer4.2": "layer4.1",
        "layer4.3": "layer4.1",
    }


def test_mobilenets_third_stage_is_two_by_width() -> None:
    # Blocks of stage 3 by width: 4 of 64 and 3 of 96 channels, then 6 and 4 (4/7 of 10 is 5.7).
    found = block_sources(allocated("mobilenetv2", 2, 3, 7, 3), allocated("mobilenetv2", 1, 1, 10, 3))
    numbers = {
        int(block.removeprefix("features.")): int(source.removeprefix("features."))
        for block, source in found.items()
    }
    stage_1_and_2 = {2: 2, 3: 4}
    narrow = {4: 7, 5: 8, 6: 9, 7: 10, 8: 10, 9: 10}
    wide = {10: 11, 11: 12, 12: 13, 13: 13}
    rest = {14: 14, 15: 15, 16: 16, 17: 17, 18: 18}
    assert numbers == stage_1_and_2 | narrow | wide | rest


def test_dilations_and_stems_do_not_matter() -> None:
    plain = allocated("resnet18", 1, 1, 2, 4)
    dilated = replace(plain, genes=Genes({"blocks": (1, 1, 2, 4), "dilations": (1, 2, 3, 1, 2, 3, 1, 2)}))
    assert block_sources(plain, dilated) == block_sources(plain, ZOO["crnas_resnet18c"])


@pytest.mark.parametrize("other", ["mobilenetv2", "spinenet49"])
def test_networks_of_another_family_are_refused(other: str) -> None:
    with pytest.raises(ConfigError, match="allowed are two networks of one family"):
        block_sources(ZOO["resnet18"], ZOO[other])
    with pytest.raises(ConfigError, match="allowed are two networks of one family"):
        block_sources(ZOO["spinenet49"], ZOO["spinenet49"])
