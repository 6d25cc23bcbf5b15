"""Weights to begin with: torchvision's networks to the digit, other allocations block by block, and every refusal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import Bottleneck, ResNet

import nas.training_files
from nas.config import check
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.initial_weights import TORCHVISION, InitialWeights, initial_weights, read_state
from nas.progress import Silent
from nas.recipes.train_job import TrainJobRecipe
from nas.targets import read_recipe
from nas.training import read_result, train_bundle
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import ZOO, family_of
from search_spaces.crnas.remapping import block_sources
from search_spaces.errors import ConfigError, RunError

RECIPE = Path(__file__).parent / "recipes/train.yaml"
SETTINGS = Genes({**ZOO["resnet18"].settings, "widths": (8, 8, 16, 16), "stem": "small"})


def small(*blocks: int, dilations: tuple[int, ...] | None = None, **settings: Any) -> Architecture:
    genes = Genes({"blocks": blocks, "dilations": dilations or (1,) * sum(blocks)})
    return replace(ZOO["resnet18"], settings=Genes({**SETTINGS, **settings}), genes=genes)


def mobile(*blocks: int) -> Architecture:
    return replace(ZOO["mobilenetv2"], genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}))


def drawn(architecture: Architecture, seed: int = 3) -> nn.Module:
    """A network whose statistics are no zeros and ones either."""
    network = family_of(architecture).build(architecture, seed=seed)
    return shaken(network, seed)


def shaken(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)
    return network.eval()


def taken(init: Path | str, architecture: Architecture, *, remap: bool = False) -> InitialWeights:
    found = initial_weights(str(init), remap=remap, bundle="", architecture=architecture)
    assert found is not None
    return found


def loaded(init: Path | str, architecture: Architecture, *, remap: bool = False) -> nn.Module:
    network = family_of(architecture).build(architecture, seed=9)
    taken(init, architecture, remap=remap).load(network)
    return network.eval()


def bundle(architecture: Architecture, folder: Path, seed: int = 3) -> Path:
    return export_bundle(architecture, drawn(architecture, seed).state_dict(), folder, Card(title="test"))


# ---- torchvision's networks -------------------------------------------------------------------------------------

RESNET = {"layer1": "c2", "layer2": "c3", "layer3": "c4", "layer4": "c5"}
MOBILENET = {"features.3": "c2", "features.6": "c3", "features.13": "c4", "features.18": "c5"}


def theirs(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if name == "resnext101":
            # torchvision has a 32x8d only; the zoo's is the paper's 32x4d.
            network: nn.Module = ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)
        else:
            known = TORCHVISION[name]
            assert known is not None
            network = torchvision.models.get_model(known, weights=None)
    return shaken(network, 1)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_maps_of_every_baseline_equal_torchvisions(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    path = tmp_path / ("weights.safetensors" if name == "resnet18" else "weights.pth")
    if path.suffix == ".pth":
        torch.save(other.state_dict(), path)
    else:
        save_file(other.state_dict(), path)
    network = loaded(path, ZOO[name])
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    nodes = MOBILENET if name == "mobilenetv2" else RESNET
    with torch.inference_mode():
        wanted, found = create_feature_extractor(other, nodes)(images), network(images)
    assert set(found) == set(wanted)
    for level, values in wanted.items():
        assert values.std() > 0, "a map of zeros would equal anything"
        torch.testing.assert_close(found[level], values, rtol=1e-6, atol=1e-6)


def test_counters_that_old_files_lack_and_states_in_a_checkpoint(tmp_path: Path) -> None:
    state = {
        name: one
        for name, one in theirs("resnet18").state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save({"model": state, "epoch": 7}, tmp_path / "old.pth")
    found = taken(tmp_path / "old.pth", ZOO["resnet18"])
    assert torch.equal(found.tensors["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert found.fresh == () and int(found.tensors["bn1.num_batches_tracked"]) == 0


def test_half_precision_becomes_the_networks_own(tmp_path: Path) -> None:
    network = small(1, 1, 1, 1)
    halves = {
        name: one.half() if one.is_floating_point() else one
        for name, one in drawn(network).state_dict().items()
    }
    save_file(halves, tmp_path / "half.safetensors")
    found = taken(tmp_path / "half.safetensors", network)
    assert {one.dtype for one in found.tensors.values()} == {torch.float32, torch.int64}


def test_imagenet_asks_torchvision_for_the_weights_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fetched(self: Any, **options: Any) -> dict[str, Tensor]:
        asked.append((self.url, options))
        return dict(theirs("resnet18").state_dict())

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetched)
    found = taken("imagenet", ZOO["resnet18"])
    assert "resnet18" in asked[0][0] and asked[0][1]["weights_only"] and asked[0][1]["check_hash"]
    assert found.origin == "torchvision resnet18 IMAGENET1K_V1"
    remapped = taken("imagenet", ZOO["scr_resnet18"], remap=True)
    assert remapped.blocks["layer4.3"] == "layer4.1" and remapped.fresh == ()
    with pytest.raises(RunError, match=r"layer4\.2.* missing.*set remap=true"):
        taken("imagenet", ZOO["scr_resnet18"])
    with pytest.raises(ConfigError, match="of resnet18 torchvision has IMAGENET1K_V1 only"):
        taken("imagenet_v2", ZOO["resnet18"])


def test_weights_that_cannot_be_fetched_or_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any, **options: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(RunError, match=r"https://\S+resnet50\S+ cannot be fetched .*no route.*init=FILE"):
        taken("imagenet", ZOO["resnet50"])
    for other in (ZOO["resnext101"], ZOO["spinenet49"], small(2, 2, 2, 2)):
        with pytest.raises(ConfigError, match="torchvision has no ImageNet weights for"):
            taken("imagenet", other)


# ---- remapping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50", "mobilenetv2"])
def test_a_remapped_network_of_the_same_allocation_is_the_original(name: str, tmp_path: Path) -> None:
    source = ZOO[name]
    original = drawn(source)
    folder = export_bundle(source, original.state_dict(), tmp_path / "bundle", Card(title="test"))
    network = loaded(folder, source, remap=True)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, wanted = network(images), original(images)
    assert all(torch.equal(found[level], wanted[level]) for level in wanted)
    assert all(torch.equal(one, network.state_dict()[key]) for key, one in original.state_dict().items())


@pytest.mark.parametrize(
    ("source", "target", "drawn_blocks"),
    [
        (small(2, 2, 2, 2), small(1, 1, 2, 4), set()),
        (small(2, 2, 2, 2), small(3, 2, 1, 2, dilations=(1, 2, 3, 1, 2, 3, 1, 2)), set()),
        # Stages 1 and 3 have a first block only: in stage 1 later ones are alike, in stage 3 they are not.
        (small(1, 2, 1, 4), small(2, 2, 2, 2), {"layer3.1"}),
        (ZOO["mobilenetv2"], mobile(1, 4, 9, 4), set()),
    ],
)
def test_every_copied_tensor_is_its_sources_and_the_rest_is_listed(
    source: Architecture, target: Architecture, drawn_blocks: set[str], tmp_path: Path
) -> None:
    found = taken(bundle(source, tmp_path / "bundle"), target, remap=True)
    given, names = drawn(source).state_dict(), block_sources(source, target)
    network = family_of(target).build(target, seed=9)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    found.load(network)
    assert set(found.fresh).isdisjoint(found.tensors)
    assert set(found.fresh) | set(found.tensors) == set(before)
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in found.fresh} == drawn_blocks
    assert set(names) - set(found.blocks) == drawn_blocks
    for name, one in network.state_dict().items():
        block = next((block for block in names if name.startswith(f"{block}.")), None)
        other = name if block is None else names[block] + name.removeprefix(block)
        assert torch.equal(one, before[name] if name in found.fresh else given[other]), name
    assert all(name in found.sentence() for name in found.fresh)


def test_a_block_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    wide = small(2, 2, 2, 2, widths=(8, 8, 16, 24))
    found = taken(bundle(wide, tmp_path / "wide"), small(2, 2, 2, 2), remap=True)
    assert set(found.blocks) == {f"layer{stage}.{index}" for stage in (1, 2, 3) for index in (0, 1)}
    # The last stage's kernels of batch normalisation alone would fit nothing either.
    assert {name.split(".")[0] for name in found.fresh} == {"layer4"}
    other_stem = small(2, 2, 2, 2, stem="imagenet")
    found = taken(bundle(other_stem, tmp_path / "stem"), small(2, 2, 2, 2), remap=True)
    assert found.fresh == ("conv1.weight",)
    with pytest.raises(
        ConfigError, match=r"remap: no block of .* take weights of a network of the same widths"
    ):
        taken(bundle(small(2, 2, 2, 2, widths=(4, 4, 4, 4)), tmp_path / "narrow"), wide, remap=True)


def test_a_file_alone_is_recognised_by_its_shapes(tmp_path: Path) -> None:
    torch.save(theirs("mobilenetv2").state_dict(), tmp_path / "theirs.pth")
    assert (
        taken(tmp_path / "theirs.pth", mobile(2, 3, 9, 3), remap=True).blocks["features.11"] == "features.10"
    )
    save_file(drawn(small(2, 2, 2, 2)).state_dict(), tmp_path / "ours.safetensors")
    assert taken(tmp_path / "ours.safetensors", small(1, 1, 2, 4), remap=True).fresh == ()
    save_file(drawn(small(1, 3, 3, 1)).state_dict(), tmp_path / "unknown.safetensors")
    with pytest.raises(RunError, match="does not say of which network it is"):
        taken(tmp_path / "unknown.safetensors", small(1, 1, 2, 4), remap=True)


def test_other_families_take_weights_of_the_same_structure_only(tmp_path: Path) -> None:
    spinenet = replace(
        ZOO["spinenet49s"],
        settings=Genes({**ZOO["spinenet49s"].settings, "filter_size_scale": 0.25, "endpoint": 8}),
    )
    folder = bundle(spinenet, tmp_path / "bundle")
    assert taken(folder, spinenet).fresh == ()
    with pytest.raises(ConfigError, match="remap: weights of a network of spinenet"):
        taken(folder, spinenet, remap=True)
    with pytest.raises(RunError, match="are of another network"):
        taken(folder, small(1, 1, 1, 1))


# ---- what is refused --------------------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    path.write_bytes(b"PK no zip at all")


def with_code(path: Path) -> None:
    torch.save({"fc": nn.Linear(1, 1)}, path)


def a_number(path: Path) -> None:
    torch.save({"accuracy": 0.7}, path)


def not_finite(path: Path) -> None:
    state = drawn(small(1, 1, 1, 1)).state_dict()
    state["bn1.weight"][0] = float("nan")
    torch.save(state, path)


def another(path: Path) -> None:
    torch.save(drawn(small(1, 1, 1, 1, widths=(8, 8, 16, 24))).state_dict(), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged, "cannot be read as weights"),
        (with_code, "holds more than tensors and plain data, which may run code"),
        (a_number, "holds no state of a network"),
        (not_finite, r"bn1\.weight hold NaN or infinity"),
        (another, r"of another shape: layer4\.0\.conv1\.weight \[24, 16, 3, 3\] and not \[16, 16, 3, 3\]"),
    ],
)
def test_files_that_cannot_be_used(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "weights.pth")
    with pytest.raises(RunError, match=rf"init: .*weights\.pth.*{message}"):
        taken(tmp_path / "weights.pth", small(1, 1, 1, 1))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_an_old_file_of_torch_with_any_byte_lost_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.ones(2, 1)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + content[place + 1 :])
        try:
            read_state(path)
        except RunError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(content) / 2


def test_a_damaged_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match=r"weights\.safetensors cannot be read as weights"):
        taken(tmp_path / "weights.safetensors", small(1, 1, 1, 1))


def test_words_and_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init: found 'imagnet'.*allowed are scratch, bundle, imagenet"):
        taken("imagnet", small(1, 1, 1, 1))
    with pytest.raises(RunError, match="no bundle in"):
        taken(tmp_path, small(1, 1, 1, 1))
    with pytest.raises(
        ConfigError, match=r"init: found 'bundle', but resnet18 is no folder .*--set init=scratch"
    ):
        initial_weights("bundle", remap=False, bundle="resnet18", architecture=small(1, 1, 1, 1))
    for remap in ("init=scratch", "init=bundle"):
        with pytest.raises(ConfigError, match="remap: found True; allowed is false with init"):
            check(TrainJobRecipe, read_recipe(RECIPE, [remap, "remap=true"]), source="r")


# ---- trainings --------------------------------------------------------------------------------------------------


def test_a_training_begins_with_those_of_another_and_says_what_is_fresh(tmp_path: Path) -> None:
    def trained(network: Architecture, name: str, *overrides: str) -> dict[str, Any]:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(network.to_dict()))
        data = read_recipe(
            RECIPE, ["train.epochs=null", "train.steps=1", "train.evaluate_every=0", *overrides]
        )
        train_bundle(str(path), check(TrainJobRecipe, data, source="r"), tmp_path / name, Listening())
        found = read_result(tmp_path / name)
        assert found is not None
        return found

    said: list[str] = []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    first = trained(small(1, 2, 1, 4), "first")
    assert first["initial_weights"] is None and not said
    second = trained(small(2, 2, 2, 2), "second", f"init={tmp_path / 'first'}", "remap=true")
    begun = second["initial_weights"]
    assert begun["origin"] == str(tmp_path / "first") and begun["blocks"]["layer4.1"] == "layer4.1"
    assert begun["fresh"] and all(name.startswith("layer3.1.") for name in begun["fresh"])
    assert "freshly drawn: layer3.1" in said[0]
    _, weights = nas.training_files.stored_backbone(tmp_path / "first")
    assert weights is not None
    expected = taken(tmp_path / "first", small(2, 2, 2, 2), remap=True)
    assert begun["digest"] == expected.digest
    assert torch.equal(expected.tensors["conv1.weight"], weights["conv1.weight"])
    third = trained(small(1, 2, 1, 4), "third", f"init={tmp_path / 'first'}")
    assert third["initial_weights"]["fresh"] == [] and third["initial_weights"]["blocks"] == {}
