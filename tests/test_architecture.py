"""The genotype: immutable, canonical, with a digest that is the same everywhere."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.architecture import Architecture, Genes, Prefix, canonical_json, digest_of, freeze
from search_spaces.errors import InvalidArchitecture

SCALARS = (
    st.integers(-(10**6), 10**6) | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
GENES = st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=4)


def example(**genes: Any) -> Architecture:
    return Architecture(
        family="crnas.resnet",
        settings=Genes({"block": "basic", "widths": [16, 32, 64, 128]}),
        genes=Genes(genes or {"blocks": (1, 1, 2, 4), "dilations": (1,) * 8}),
    )


@given(GENES, GENES)
def test_dict_and_json_round_trips(settings: dict[str, Any], genes: dict[str, Any]) -> None:
    architecture = Architecture(family="f", version=2, settings=Genes(settings), genes=Genes(genes))
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.digest == architecture.digest


def test_digest_is_the_same_in_every_process_and_order_of_keys() -> None:
    code = """
from search_spaces.architecture import Architecture, Genes
settings = Genes({"widths": [16, 32, 64, 128], "block": "basic"})
genes = Genes({"dilations": [1] * 8, "blocks": [1, 1, 2, 4]})
print(Architecture(family="crnas.resnet", settings=settings, genes=genes).digest)
"""
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    # Files and journals are keyed by it: a change of this constant orphans them.
    assert example().digest == printed.stdout.strip() == "abe5e966dfcab099"


def test_different_networks_have_different_digests() -> None:
    base = example()
    others = [
        example(blocks=(2, 2, 2, 2), dilations=(1,) * 8),
        Architecture(family="other", settings=base.settings, genes=base.genes),
        Architecture(family=base.family, version=2, settings=base.settings, genes=base.genes),
        Architecture(family=base.family, settings=Genes({}), genes=base.genes),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 5


def test_lists_become_tuples_and_nothing_can_be_changed() -> None:
    genes = Genes({"blocks": [1, [2, 3]]})
    assert genes["blocks"] == (1, (2, 3))
    with pytest.raises(TypeError):
        genes["blocks"] = (1,)  # type: ignore[index]
    with pytest.raises(AttributeError):
        example().family = "other"  # type: ignore[misc]


@pytest.mark.parametrize("value", [None, True, {"a": 1}, {1}, object(), [1, None], b"x"])
def test_values_json_cannot_carry_are_refused(value: object) -> None:
    with pytest.raises(InvalidArchitecture, match=r"blocks: found .* allowed are numbers, strings and lists"):
        Genes({"blocks": value})
    with pytest.raises(InvalidArchitecture):
        freeze(value, name="value")


@pytest.mark.parametrize("change", [{"family": None}, {"score": 1.0}])
def test_missing_or_unknown_keys_are_named(change: dict[str, Any]) -> None:
    data = {**example().to_dict(), **change}
    wrong = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(InvalidArchitecture, match=r"exactly the keys .*; found"):
        Architecture.from_dict(wrong)


def test_prefix_has_a_digest_of_its_own() -> None:
    empty, one = Prefix(space="s", genes=Genes({})), Prefix(space="s", genes=Genes({"d1.0": 2}))
    other = Prefix(space="t", genes=Genes({"d1.0": 2}))
    assert len({empty.digest, one.digest, other.digest, example().digest}) == 4
    assert one == Prefix(space="s", genes=Genes({"d1.0": 2}))
    assert str(one) == "prefix(2)"


def test_text_for_people() -> None:
    assert str(example(blocks=(1, 2))) == "crnas.resnet blocks=[1,2]"


def test_canonical_json_is_sorted_and_finite() -> None:
    assert canonical_json({"b": (1, 2), "a": Genes({"x": 1.5})}) == '{"a":{"x":1.5},"b":[1,2]}'
    assert len(digest_of("x")) == 16
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))
