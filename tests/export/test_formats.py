"""Every format gives the maps of the network it was made of, in its own runtime, for any batch and size it accepts."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.export import backbone_files, formats
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.export.formats import chosen_formats, export_formats
from nas.export.onnx_file import OnnxModel
from nas.export.parity import MAPS, compare_maps
from nas.export.subject import Subject, random_images
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import family_of
from search_spaces.errors import ConfigError, RunError
from trainers.learner import normalised

SIZE = (64, 96)


def small() -> Architecture:
    settings = {
        "block": "basic",
        "widths": [8, 16, 16, 24],
        "stem": "imagenet",
        "groups": 1,
        "width_per_group": 64,
    }
    genes = {"blocks": [1, 1, 2, 1], "dilations": [1, 2, 1, 3, 2]}
    return Architecture(family="crnas.resnet", settings=Genes(settings), genes=Genes(genes))


def warmed(architecture: Architecture) -> nn.Module:
    network = family_of(architecture).build(architecture, seed=3)
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return network.eval()


def subject(**changes: object) -> Subject:
    values = {
        "architecture": small(),
        "backbone": warmed(small()),
        "image_size": SIZE,
        "images": random_images(SIZE, count=2),
        "on": "2 random images",
    }
    return Subject(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of all formats of a backbone alone."""
    one = subject()
    to = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(one.architecture, one.backbone.state_dict(), to, Card(title="Test"))
    export_formats(one, to, ["source", "onnx", "torch_export"])
    return to


def test_every_format_is_there_and_equal_to_1e_5(folder: Path) -> None:
    report = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert [one.partition(":")[0] for one in report["left_out"]] == ["onnx", "torch_export"]
    assert all("no detector was trained" in one for one in report["left_out"])
    assert [one["file"] for one in report["artefacts"]] == ["backbone.py", "backbone.onnx", "backbone.pt2"]
    for one in report["artefacts"]:
        assert (folder / one["file"]).stat().st_size == one["bytes"]
        assert {check["of"] for check in one["checks"]} == {"c2", "c3", "c4", "c5"}
        assert all(0 <= check["difference"] <= check["limit"] == 1e-5 for check in one["checks"])
        assert "multiples of 32 from 64" in one["accepts"] or one["format"] == "source"
        assert one["on"] == "2 random images"


def test_running_what_was_exported_leaves_no_compiled_code_in_it(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if "__pycache__" in path.parts]


def test_onnx_takes_other_batches_and_sizes_than_it_was_made_with(folder: Path) -> None:
    model, network = OnnxModel(folder / "backbone.onnx"), warmed(small())
    for shape in ((1, 64, 64), (5, 128, 96)):
        images = normalised(random_images(shape[1:], seed=7, count=shape[0]))
        with torch.no_grad():
            compare_maps(network(images), model(images), name="onnx", of="backbone.onnx")


def test_a_difference_names_format_level_and_size_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def off_by_a_little(images: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            maps = list(one.backbone(images).values())
        maps[1] = maps[1] * (1 + 3e-5)
        return maps

    one = subject()
    monkeypatch.setattr(backbone_files, "pt2_alone", lambda path: nullcontext(off_by_a_little))
    with pytest.raises(RunError, match=r"torch_export: backbone.pt2 is 3e-05 .* level c3, allowed is 1e-05"):
        export_formats(one, tmp_path, ["torch_export"])
    assert not list(tmp_path.rglob("*.pt2"))
    assert not (tmp_path / "export.json").exists()


def test_not_a_number_is_a_difference() -> None:
    with pytest.raises(RunError, match="level c2"):
        compare_maps({"c2": torch.ones(1)}, {"c2": torch.full((1,), torch.nan)}, name="onnx", of="file")
    with pytest.raises(RunError, match=r"\(1,\)"):
        compare_maps({"c2": torch.ones(2)}, {"c2": torch.ones(1)}, name="onnx", of="file")
    found = compare_maps({"c2": torch.zeros(1)}, {"c2": torch.full((1,), 1e-6)}, name="onnx", of="file")
    assert found[0].difference == pytest.approx(1e-6)
    assert found[0].limit == MAPS


def test_source_without_weights_is_compared_and_leaves_none(tmp_path: Path) -> None:
    one = subject()
    export_bundle(one.architecture, None, tmp_path / "bundle", Card(title="Test"))
    exported = export_formats(one, tmp_path / "bundle", ["source"])
    assert [artefact.file for artefact in exported.artefacts] == ["backbone.py"]
    assert not list((tmp_path / "bundle").glob("*.safetensors"))


class Fixed(nn.Module):
    """A network whose graph holds for one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = {"c3": (4, 8)}
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = int(images.shape[-2]), int(images.shape[-1])
        assert (height, width) == SIZE
        return {"c3": self.conv(images)}


def test_a_network_for_one_size_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported = export_formats(subject(backbone=Fixed().eval()), tmp_path, ["torch_export"])
    assert exported.artefacts[0].accepts.startswith("float32 (N, 3, 64, 96), any N")


def test_formats_are_refused_or_left_out_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_formats(()) == chosen_formats(["all"])
    assert chosen_formats(["torch_export", "source"]) == (("source", "torch_export"), ())
    with pytest.raises(ConfigError, match=r"found 'onxx'; allowed are all, source, onnx"):
        chosen_formats(["onxx"])
    monkeypatch.setattr(formats, "missing_packages", lambda: ("onnxruntime",))
    with pytest.raises(ConfigError, match=r"onnx needs onnxruntime: pip install 'vertebra\[onnx\]'"):
        chosen_formats(["onnx"])
    names, left_out = chosen_formats(())
    assert "onnx" not in names
    assert "onnxruntime" in left_out[0]
