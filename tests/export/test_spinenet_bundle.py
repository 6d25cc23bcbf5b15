"""The stand-alone source of every published scale-permuted network is that network."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.export.bundle import export_bundle, load_bundle
from nas.export.card import Card
from nas.export.source import backbone_source, foreign_imports
from search_spaces.families import family_of
from search_spaces.spinenet.ablations import chain
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings

LEVELS = ["p3", "p4", "p5", "p6", "p7"]


def stand_alone(source: str) -> Callable[[], nn.Module]:
    """``build`` of an exported source."""
    space: dict[str, Any] = {"__name__": "backbone"}
    exec(compile(source, "backbone.py", "exec"), space)
    return space["build"]  # type: ignore[no-any-return]


def drawn(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and statistics of no particular network, for one that stands on the meta device."""
    generator = torch.Generator().manual_seed(4)
    found = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            found[name] = torch.ones(value.shape, dtype=value.dtype)
        elif value.ndim > 1:
            found[name] = torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
        else:
            found[name] = 0.5 + torch.rand(value.shape, generator=generator)
    return found


@pytest.mark.parametrize("name", ZOO)
def test_stand_alone_source_equals_the_network(name: str) -> None:
    source = backbone_source(ZOO[name])
    assert foreign_imports(source) == set()
    with torch.device("meta"):
        ours, theirs = family_of(ZOO[name]).build(ZOO[name]), stand_alone(source)()
    norms = [one for one in theirs.modules() if isinstance(one, nn.BatchNorm2d)]
    assert norms and {(one.momentum, one.eps) for one in norms} == {(0.01, 1e-3)}, "the paper's"
    weights = drawn(ours)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps = []
        for network in (ours, theirs):
            network.load_state_dict(weights, assign=True)
            maps.append(network.eval()(images))
    assert list(maps[0]) == list(maps[1]) == LEVELS
    for level in LEVELS:
        assert maps[0][level].abs().max() > 0
        torch.testing.assert_close(maps[0][level], maps[1][level], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "architecture",
    [
        with_settings(
            proxy(ZOO["r23_sp30"], width=0.125, endpoint=8), {"pool": "chain", "activation": "swish"}
        ),
        chain(proxy(ZOO["r0_sp53"], width=0.125, endpoint=8)),
        with_settings(ZOO["spinenet49xs_mobile"], {"activation": "hswish", "gate": "hard_sigmoid"}),
    ],
    ids=["chain_pool", "damaged", "hard"],
)
def test_a_bundle_runs_on_its_own_and_loads_back(architecture: Any, tmp_path: Path) -> None:
    network = family_of(architecture).build(architecture, seed=3).eval()
    folder = export_bundle(architecture, network.state_dict(), tmp_path / "bundle", Card(title="Test"))
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "backbone.py"), str(folder / "weights.safetensors")],
        capture_output=True,
        text=True,
        timeout=240,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == LEVELS
    found, weights = load_bundle(folder)
    assert found == architecture
    assert weights is not None and set(weights) == set(network.state_dict())
