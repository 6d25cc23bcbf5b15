"""Plug-ins of MMDetection and Detectron2: built by a stand-in registry, equal to the network, with configs that fit."""

import sys
import types
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.export.formats import export_formats
from nas.export.subject import Subject, random_images
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import family_of
from search_spaces.spinenet.zoo import ZOO, proxy

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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = family_of(small()).build(small(), seed=3).eval()
    to = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(small(), network.state_dict(), to, Card(title="Test"))
    images = random_images(SIZE, count=2)
    one = Subject(
        architecture=small(), backbone=network, image_size=SIZE, images=images, on="2 random images"
    )
    exported = export_formats(one, to, ["mmdet", "detectron2"])
    networks = [artefact for artefact in exported.artefacts if artefact.checks]
    assert [artefact.file for artefact in networks] == [
        "mmdet/vertebra_mmdet.py",
        "detectron2/vertebra_detectron2.py",
    ]
    assert all(check.difference <= 1e-5 for artefact in networks for check in artefact.checks)
    return to


class Registry:
    """As much of a registry as a plug-in needs, called in both libraries' ways."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def register(self, one: Any = None) -> Any:
        def keep(given: Any) -> Any:
            self.known[given.__name__] = given
            return given

        return keep if one is None else keep(one)

    register_module = register

    def build(self, config: dict[str, Any]) -> Any:
        arguments = {name: value for name, value in config.items() if name not in ("type", "_delete_")}
        return self.known[config["type"]](**arguments)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    shape = types.SimpleNamespace
    for name, members in {
        "mmdet": {},
        "mmdet.registry": {"MODELS": found},
        "detectron2": {},
        "detectron2.modeling": {"BACKBONE_REGISTRY": found, "Backbone": nn.Module, "ShapeSpec": shape},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return found


def imported(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mmdet_builds_the_backbone_its_config_names(bundle: Path, registry: Registry) -> None:
    imported(bundle / "mmdet/vertebra_mmdet.py")
    config: dict[str, Any] = {}
    exec((bundle / "mmdet/config.py").read_text(encoding="utf-8"), config)
    model = config["model"]
    backbone = registry.build(model["backbone"])
    network = family_of(small()).build(small(), seed=3).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, wanted = backbone.eval()(images), network(images)
    assert isinstance(maps, tuple)
    for one, other in zip(maps, wanted.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert model["neck"]["in_channels"] == [one.shape[1] for one in maps]
    strides = model["rpn_head"]["anchor_generator"]["strides"]
    assert strides == [4, 8, 16, 32, 64]
    assert model["neck"]["num_outs"] == len(strides)
    assert model["roi_head"]["bbox_roi_extractor"]["featmap_strides"] == strides[:4]
    assert model["data_preprocessor"]["pad_size_divisor"] == 32
    assert model["data_preprocessor"]["mean"] == [123.675, 116.28, 103.53]


def test_mmdet_backbone_trains_as_its_settings_say(bundle: Path, registry: Registry) -> None:
    imported(bundle / "mmdet/vertebra_mmdet.py")
    one = registry.build({"type": "VertebraBackbone", "levels": ("c3", "c5"), "norm_eval": True})
    one.init_weights()
    norms = [module for module in one.modules() if isinstance(module, nn.BatchNorm2d)]
    assert one.train().training and not any(module.training for module in norms)
    assert [tuple(found.shape[1:]) for found in one(torch.zeros(1, 3, 64, 64))] == [(16, 8, 8), (24, 2, 2)]
    with pytest.raises(
        ValueError, match=r"levels: found \['p9'\]; this network has \['c2', 'c3', 'c4', 'c5'\]"
    ):
        registry.build({"type": "VertebraBackbone", "levels": ("p9",)})
    with pytest.raises(ValueError, match="init_cfg"):
        registry.build({"type": "VertebraBackbone", "init_cfg": {"type": "Pretrained"}})


def test_detectron2_builds_the_backbone_its_config_names(bundle: Path, registry: Registry) -> None:
    imported(bundle / "detectron2/vertebra_detectron2.py")
    config = yaml.safe_load((bundle / "detectron2/config.yaml").read_text(encoding="utf-8"))["MODEL"]
    assert config["BACKBONE"]["NAME"] in registry.known
    backbone = registry.known["build_vertebra_backbone"](None, None)
    shapes = backbone.output_shape()
    assert {name: (one.channels, one.stride) for name, one in shapes.items()} == {
        "c2": (8, 4),
        "c3": (16, 8),
        "c4": (16, 16),
        "c5": (24, 32),
    }
    assert backbone.size_divisibility == 32
    assert config["FPN"]["IN_FEATURES"] == list(shapes)
    # As Detectron2's pyramid calls the maps of these strides.
    assert config["RPN"]["IN_FEATURES"] == ["p2", "p3", "p4", "p5", "p6"]
    assert config["ROI_HEADS"]["IN_FEATURES"] == ["p2", "p3", "p4", "p5"]
    assert len(config["ANCHOR_GENERATOR"]["SIZES"]) == 5
    network = family_of(small()).build(small(), seed=3).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, one in backbone.eval()(images).items():
            torch.testing.assert_close(one, network(images)[name], rtol=1e-5, atol=1e-6)
    # Its extra level begins at the coarsest map.
    source = (bundle / "detectron2/vertebra_detectron2.py").read_text(encoding="utf-8")
    assert 'top.in_feature = "p5"' in source


def test_a_network_that_is_a_pyramid_gets_no_second_one(tmp_path: Path) -> None:
    architecture = proxy(next(iter(ZOO.values())))
    network = family_of(architecture).build(architecture, seed=3).eval()
    export_bundle(architecture, network.state_dict(), tmp_path / "bundle", Card(title="Test"))
    one = Subject(
        architecture=architecture,
        backbone=network,
        image_size=(128, 128),
        images=random_images((128, 128), count=1),
        on="1 random image",
    )
    export_formats(one, tmp_path / "bundle", ["detectron2"])
    path = tmp_path / "bundle/detectron2/config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))["MODEL"]
    assert config["BACKBONE"]["NAME"] == "build_vertebra_backbone"
    assert config["RPN"]["IN_FEATURES"] == ["p3", "p4", "p5", "p6", "p7"]
    assert config["ROI_HEADS"]["IN_FEATURES"] == ["p3", "p4", "p5", "p6"]
    assert config["ANCHOR_GENERATOR"]["SIZES"] == [[64], [128], [256], [512], [1024]]
