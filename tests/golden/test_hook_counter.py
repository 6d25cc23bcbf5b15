"""The hook counter of the tests against networks and counts that are none of ours: timm's."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hook_counter import hooked
from test_cost_tables import NETWORKS, OTHERS
from timm_sample import ROWS, SAMPLE, Dispatched, Row, built, is_convolutional, table
from torch import nn

from search_spaces.families import family_of
from search_spaces.family import ChainFamily

DRAWN = [(name, side) for name, side in json.loads(SAMPLE.read_text(encoding="utf-8"))["rows"]]
# What multiplies nothing and moves nothing.
SILENT = (nn.Identity, nn.ReLU, nn.ReLU6, nn.Dropout, nn.Flatten)


@pytest.fixture(scope="module")
def printed(shared_data: Path) -> dict[tuple[str, int], list[Row]]:
    """timm's tables; skips where they or timm are not at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "HF_HUB_OFFLINE", "1"
        )  # read once, when timm is imported; nothing asks for weights anyway
        pytest.importorskip("timm", reason="timm, an optional library, builds the networks")
    folder = shared_data.parent / "tables" / "timm_results"
    if not folder.is_dir():
        pytest.skip(f"needs shared data; {folder} is no folder")
    return table(folder)


def test_the_sample_is_a_hundred_rows() -> None:
    assert len(DRAWN) == len(set(DRAWN)) == ROWS == 100


@pytest.mark.parametrize(("name", "side"), DRAWN)
def test_hooks_count_what_timm_prints(
    name: str, side: int, printed: dict[tuple[str, int], list[Row]]
) -> None:
    """Parameters, operations and activations, to the two digits after the point of every table that has the row."""
    network = built(name)
    assert is_convolutional(network)
    with torch.no_grad(), Dispatched() as seen, hooked(network) as count:
        network(torch.empty(1, 3, side, side, device="meta"))
    assert (count.macs, count.normalisation, count.upsampling) == (
        seen.macs,
        seen.normalisation,
        seen.upsampling,
    ), "what hooks see is what torch did"
    params = sum(weight.numel() for weight in network.parameters())
    found = (params / 1e6, count.as_fvcore / 1e9, count.activations / 1e6)
    for row in printed[name, side]:
        assert found == pytest.approx(row, rel=0, abs=0.005 + 1e-9)


def test_rows_are_left_out_for_their_layers(printed: dict[tuple[str, int], list[Row]]) -> None:
    """Of the networks that timm still builds, ours have exactly the layers of those compared and of no other.

    Whoever has other parameters has other layers, so only those with as many as one of ours are built.
    """
    import timm

    ours = {
        name: Counter(
            ("conv", one.inputs, one.outputs, one.kernel, one.stride, one.groups)
            if one.kind == "conv"
            else (one.kind, one.outputs)
            for one in family.layers(architecture)
        )
        for name, architecture in NETWORKS.items()
        if isinstance(family := family_of(architecture), ChainFamily)
    }
    known = set(timm.list_models())
    params = {name: rows[0][0] for (name, _), rows in printed.items()}
    taken = {params[name] for name in NETWORKS if name in params}
    compared = sorted(known & NETWORKS.keys())
    others = sorted(name for name in known & OTHERS.keys() if params.get(name) in taken)
    for name in compared:
        assert Counter(_layers(built(name))) == ours[name], name
    for name in others:
        assert Counter(_layers(built(name))) not in ours.values(), name
    assert len(compared) == 20
    assert {"resnetaa50", "resnetblur18", "resnet50_gn"} <= set(others)


def _layers(network: nn.Module) -> Iterator[tuple[object, ...]]:
    """Those of the cost model by what decides their cost, any other by its kind; classifiers are left out."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            yield (
                "conv",
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size[0],
                layer.stride[0],
                layer.groups,
            )
        elif isinstance(layer, nn.BatchNorm2d):
            yield "bn", layer.num_features
        elif isinstance(layer, nn.MaxPool2d):
            yield "pool", 64
        elif not any(layer.children()) and not isinstance(layer, (*SILENT, nn.Linear, nn.AdaptiveAvgPool2d)):
            yield (type(layer).__name__,)
