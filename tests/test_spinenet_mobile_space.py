"""The space of Mobile SpineNet: the same decisions but types, blocks of one kind, recipes that search it."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import baseline_of, check_search
from nas.methods.limits import Limits
from nas.methods.spinenet import check_recipe
from nas.methods.spinenet_space import narrowed, spinenet_recipe, spinenet_space
from nas.recipes.one_search import LimitsRecipe
from nas.recipes.spinenet import SpineNetRecipe
from search_spaces.catalog import ZOO, get_space
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.spinenet.dead import dead_blocks, why_dead
from search_spaces.spinenet.family import MOBILE_SPINENET
from search_spaces.spinenet.labels import sequences
from search_spaces.spinenet.space import SpineNetSpace
from search_spaces.spinenet.zoo import with_settings

MOBILE = ZOO["spinenet49_mobile"]
SPACE = cast(SpineNetSpace, get_space("spinenet.spinenet49_mobile"))
TINY = Path(__file__).parent / "recipes/tiny_spinenet.yaml"
TO_MOBILE = (
    "space.baseline=spinenet49_mobile",
    "space.free=[permutation, connections, levels]",
    "space.filter_size_scale=0.25",
)


def tiny(*overrides: str) -> SpineNetRecipe:
    found = check_search(apply_overrides(read_yaml(TINY), [*TO_MOBILE, *overrides]), source="tiny")
    assert isinstance(found, SpineNetRecipe)
    return found


def test_genes_base_blocks_and_size() -> None:
    assert SPACE.base == (2, 2, 3, 4, 4, 4, 5, 5, 5, 5, 5)
    assert not [name for name in SPACE.genes if name.startswith("type")]
    windowed = math.prod(math.comb(min(place, 5), 2) for place in range(2, 13))
    connections = windowed * math.prod(math.comb(place, 2) for place in range(13, 18))
    assert SPACE.size == math.factorial(11) * 120 * connections * 4**11
    assert SPACE.lists == 120 * connections * sequences(SPACE.base)
    assert SPACE.baseline.genes == MOBILE.genes and SPACE.baseline in SPACE
    held = SpineNetSpace("held", MOBILE, levels=False, types=False)
    assert held.base == (2, 2, 3, 4, 4, 4, 5, 5, 5, 6, 7)


def test_random_encodings_are_networks_in_canonical_order() -> None:
    rng = rng_for(0, "mobile")
    for index in range(1500):
        network = SPACE.sample(rng)
        MOBILE_SPINENET.graph(network, window=5)
        if index < 100:
            assert SPACE.validate(network) == network == SPACE.decode(SPACE.encode(network))
            mutant = SPACE.mutate(network, rng)
            assert mutant in SPACE and mutant != network
            assert set(mutant.genes) == {"levels", "parents"}


def test_cost_of_draws_equals_that_of_the_built_networks() -> None:
    rng = rng_for(1, "mobile")
    for _ in range(3):
        network = SPACE.sample(rng)
        with torch.device("meta"):
            built = family_of(network).build(network).eval()
        macs = 0

        def count(layer: nn.Module, args: Any, output: torch.Tensor) -> None:
            nonlocal macs
            macs += cast(nn.Conv2d, layer).weight.numel() * output.shape[-2] * output.shape[-1]

        for layer in built.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        built(torch.empty(1, 3, 128, 128, device="meta"))
        found = cost(network, (128, 128))
        assert found.macs == macs
        assert found.params == sum(weights.numel() for weights in built.parameters())


def test_dead_blocks() -> None:
    # Block 12 of the published list is read by nobody; the output of its level takes it in.
    assert dead_blocks(MOBILE) == () and why_dead(MOBILE) is None
    limited = SpineNetSpace("limited", MOBILE, types=False, dead="limit")
    sentences = {limited.limit(limited.sample(rng_for(2, index))) for index in range(40)}
    assert None in sentences
    assert any(text and "nothing reads block" in text and "mbconv" in text for text in sentences)
    with pytest.raises(InvalidArchitecture, match=r"found a network of the family crnas\.resnet"):
        dead_blocks(ZOO["resnet18"])


def test_types_cannot_be_free() -> None:
    with pytest.raises(InvalidArchitecture, match=r"types: found them free, but all blocks of the family"):
        SpineNetSpace("s", MOBILE)


def test_a_recipe_searches_mobile_networks() -> None:
    recipe = tiny()
    check_recipe(recipe, source="tiny")
    space = spinenet_space(recipe.space)
    base = baseline_of(recipe)
    assert base.family == "spinenet.mobile" and space.baseline == base
    assert base.settings["filter_size_scale"] == 0.25 and base.settings["endpoint"] == 16
    network = space.sample(rng_for(3))
    narrow = narrowed(network, spinenet_recipe(recipe).search.proxy)
    assert narrow == with_settings(network, {"filter_size_scale": 0.125})
    assert Limits(space, LimitsRecipe(macs=100.0), (128, 128))(network) is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "space.alpha=0.5",
            "space.alpha: found 0.5, but spinenet49_mobile has no such setting; leave it out",
        ),
        ("space.activation=relu", "settings.activation: found 'relu'; allowed are swish, hswish"),
        ("space.free=[types]", "types: found them free, but all blocks of the family spinenet.mobile"),
        (
            "search.proxy.alpha=0.25",
            "search.proxy: alpha: found 0.25, but networks of the family spinenet.mobile have no such setting",
        ),
        ("search.proxy.width=0.01", "settings.filter_size_scale: found 0.0025"),
    ],
)
def test_mistakes_are_found_at_the_door(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(tiny(override), source="tiny")
    assert words in str(caught.value), caught.value
