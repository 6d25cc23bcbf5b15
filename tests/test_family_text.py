"""The short line a person reads of a candidate, family by family."""

import random
from dataclasses import replace

import pytest

from nas.show import short_text
from search_spaces.architecture import Architecture, Genes, Prefix
from search_spaces.catalog import ZOO, get_space
from search_spaces.crnas.families import RESNET
from search_spaces.families import family_of
from search_spaces.family import Family
from search_spaces.spinenet.family import MOBILE_SPINENET, SPINENET


@pytest.mark.parametrize(
    ("name", "text"), [("resnet18", "2,2,2,2"), ("resnet50", "3,4,6,3"), ("mobilenetv2", "2,3,7,3")]
)
def test_reallocated_networks_show_their_blocks(name: str, text: str) -> None:
    assert short_text(ZOO[name]) == family_of(ZOO[name]).text(ZOO[name]) == text


def test_dilations_are_shown_where_any_is_not_one() -> None:
    dilated = replace(
        ZOO["resnet18"], genes=Genes({"blocks": (1, 2, 2, 3), "dilations": (1, 1, 2, 1, 2, 2, 3, 3)})
    )
    assert short_text(dilated) == RESNET.text(dilated) == "1,2,2,3 d=11212233"


def test_scale_permuted_networks_show_levels_types_and_a_key_of_the_parents() -> None:
    text = short_text(ZOO["spinenet49"])
    assert text == SPINENET.text(ZOO["spinenet49"])
    assert text.startswith("2,4,3,4,6,4,5,7,5,5|4,3,5,7,6 BRBBRBRRBB|BBBBB parents ")
    assert len(text) <= 60
    mobile = MOBILE_SPINENET.text(ZOO["spinenet49_mobile"])
    assert mobile.startswith("2,2,4,3,4,6,4,5,7,5,5|4,3,5,7,6 parents ")
    assert short_text(ZOO["r23_sp30"]).startswith("4,4,4,3,2|4,3,5,7,6 BBBBB|BBBBB parents ")


def test_networks_that_differ_in_one_parent_read_differently() -> None:
    space = get_space("spinenet.spinenet49")
    rng = random.Random(5)
    around = {
        one.digest: one for one in [space.baseline, *(space.mutate(space.baseline, rng) for _ in range(100))]
    }
    assert len({short_text(one) for one in around.values()}) == len(around)
    # The settings are those of the search, not of the candidate.
    assert short_text(ZOO["spinenet49"]) == short_text(ZOO["spinenet96"])


def test_other_families_show_their_genes_and_foreign_ones_themselves() -> None:
    genes = Genes({"kernels": (3, 5), "act": "relu"})
    foreign = Architecture(family="alien", settings=Genes({}), genes=genes)
    assert Family.text(RESNET, foreign) == "kernels=[3,5] act=relu"
    assert short_text(foreign) == "alien kernels=[3,5] act=relu"
    prefix = Prefix(space="s", genes=Genes({"a": 1}))
    assert short_text(prefix) == "prefix(1)"
