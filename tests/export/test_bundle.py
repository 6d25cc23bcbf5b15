"""A bundle loads where there is only torch, equals the toolkit's network, and is never half written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.export import bundle
from nas.export.bundle import export_bundle, load_bundle
from nas.export.card import Card
from nas.export.manifest import declare_again
from nas.export.source import backbone_source, foreign_imports
from nas.methods.exporting import export
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import family_of, get_architecture
from search_spaces.errors import InvalidArchitecture, RunError
from trainers.weights import write_weights

# Run in a fresh interpreter: whatever is not torch, torch's own requirements or the standard library is absent.
STRANGER = """
import importlib.metadata, re, sys
required = importlib.metadata.requires("torch") or []
allowed = {re.match(r"[A-Za-z0-9_-]+", line).group().lower().replace("-", "_") for line in required}
allowed -= {"numpy"}
allowed |= set(sys.stdlib_module_names)
allowed |= {"torch", "torchgen", "functorch", "mpmath", "markupsafe", "backbone"}
refused = []
class OnlyTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].lower() not in allowed:
            refused.append(name)
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, OnlyTorch())
folder = sys.argv[1]
sys.path.insert(0, folder)
import backbone, torch
assert not {"search_spaces", "nas", "trainers", "safetensors", "torchvision", "numpy"} & set(sys.modules)
network = backbone.load(folder + "/weights.safetensors")
assert not network.training
images = torch.load(folder + "/images.pt", weights_only=True)
with torch.no_grad():
    torch.save(network(images), folder + "/maps.pt")
print(backbone.ARCHITECTURE["family"], network.levels)
"""


def small(**changes: object) -> Architecture:
    settings = {
        "block": "basic",
        "widths": [8, 16, 16, 24],
        "stem": "imagenet",
        "groups": 1,
        "width_per_group": 64,
    }
    genes = {"blocks": [1, 1, 2, 1], "dilations": [1, 2, 1, 3, 2]}
    settings |= {name: value for name, value in changes.items() if name in settings}
    return Architecture(family="crnas.resnet", settings=Genes(settings), genes=Genes(genes))


def mobilenet() -> Architecture:
    base = get_architecture("mobilenetv2")
    return Architecture(
        family=base.family,
        settings=Genes({**base.settings, "width_multiplier": 0.25}),
        genes=Genes({"blocks": [1, 1, 3, 1], "dilations": [1, 2, 1, 1, 3, 1]}),
    )


def warmed(architecture: Architecture) -> nn.Module:
    """The toolkit's network with batch statistics that are not those of a fresh one."""
    network = family_of(architecture).build(architecture, seed=3)
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return network.eval()


@pytest.mark.parametrize(
    "architecture",
    [
        small(),
        small(block="bottleneck", groups=4, width_per_group=8, stem="ceil_pool"),
        mobilenet(),
    ],
    ids=["basic", "grouped bottleneck", "mobilenetv2"],
)
def test_bundle_runs_where_there_is_only_torch(architecture: Architecture, tmp_path: Path) -> None:
    network = warmed(architecture)
    folder = export_bundle(architecture, network.state_dict(), tmp_path / "bundle", Card(title="Test"))
    images = torch.randn(2, 3, 70, 64, generator=torch.Generator().manual_seed(2))
    torch.save(images, folder / "images.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert architecture.family in done.stdout
    found = torch.load(folder / "maps.pt", weights_only=True)
    with torch.no_grad():
        expected = network(images)
    assert list(found) == list(expected)
    for level, features in expected.items():
        torch.testing.assert_close(found[level], features, rtol=1e-6, atol=1e-6)


def test_bundle_loads_back(tmp_path: Path) -> None:
    architecture = small()
    network = warmed(architecture)
    export_bundle(architecture, network.state_dict(), tmp_path / "bundle", Card(title="Test"))
    found, weights = load_bundle(tmp_path / "bundle")
    assert found == architecture
    assert weights is not None
    assert set(weights) == set(network.state_dict())
    family_of(found).build(found).load_state_dict(weights)
    for name, tensor in network.state_dict().items():
        assert torch.equal(weights[name], tensor)


def test_whoever_may_read_the_card_may_read_the_weights(tmp_path: Path) -> None:
    network = family_of(small()).build(small(), seed=0)
    folder = export_bundle(small(), network.state_dict(), tmp_path / "bundle", Card(title="Test"))
    modes = {one.name: oct(one.stat().st_mode) for one in folder.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_bundle_without_weights(tmp_path: Path) -> None:
    folder = export_bundle(small(), None, tmp_path / "bundle", Card(title="Test"))
    assert {path.name for path in folder.iterdir()} == {
        "architecture.json",
        "backbone.py",
        "bundle.json",
        "README.md",
    }
    assert load_bundle(folder) == (small(), None)
    card = (folder / "README.md").read_text()
    assert "build()" in card and "random weights" in card


def test_card_says_what_is_known(tmp_path: Path) -> None:
    card = Card(
        title="Winner of CR-NAS on digits",
        verdict="No better than the baseline, keep the baseline.",
        scores={"AP": "35.4 ± 0.4 over 6 seeds"},
        cost={"stages": "41 s, 31 | candidates"},
        levels={"c2": (8, 4), "c5": (24, 32)},
        data={"digest": "3f9c"},
        command="nas export runs/demo",
        versions={"torch": "2.14.1"},
    )
    network = warmed(small())
    text = (export_bundle(small(), network.state_dict(), tmp_path / "b", card) / "README.md").read_text()
    for part in (
        "# Winner of CR-NAS",
        "keep the baseline",
        "35.4 ± 0.4",
        "41 s, 31 \\| candidates",
        "| c5 | 24 | 32 |",
    ):
        assert part in text
    assert small().digest in text and "nas export runs/demo" in text
    assert re.search(r'backbone = load\("weights.safetensors"\)', text)


def test_earlier_bundle_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    export_bundle(small(), warmed(small()).state_dict(), folder, Card(title="First"))
    other = small(block="bottleneck")
    export_bundle(other, None, folder, Card(title="Second"))
    assert load_bundle(folder) == (other, None)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_failed_export_leaves_the_earlier_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    export_bundle(small(), None, folder, Card(title="First"))

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(bundle, "write_weights", full_disk)
    with pytest.raises(OSError, match="No space"):
        export_bundle(small(), warmed(small()).state_dict(), folder, Card(title="Second"))
    assert "# First" in (folder / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_folder_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", "..", "../here"):
        with pytest.raises(RunError, match="you are in it"):
            export_bundle(small(), None, Path(name), Card(title="Test"))
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_an_earlier_bundle_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    export_bundle(small(), None, folder, Card(title="First"))
    replace = Path.replace

    def fails_once(self: Path, target: Path) -> Path:
        if target == folder and self.name.startswith(".bundle-") and self.parent == tmp_path:
            raise OSError("no room for a name")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_once)
    with pytest.raises(OSError, match="no room"):
        export_bundle(small(), None, folder, Card(title="Second"))
    assert "# First" in (folder / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_disk_that_refuses_weights_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none/w\.safetensors: cannot be written: .*No such file"):
        write_weights(tmp_path / "none/w.safetensors", warmed(small()).state_dict(), {})
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(RunError, match=r"w\.safetensors: cannot be written"):
        write_weights(tmp_path / "w.safetensors", warmed(small()).state_dict(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_bundle_with_weights_is_not_exported_without_them(tmp_path: Path) -> None:
    made = export_bundle(small(), warmed(small()).state_dict(), tmp_path / "made", Card(title="Test"))
    with pytest.raises(RunError, match="is a bundle, whose trained weights would be lost"):
        export(str(made), tmp_path / "again")
    found = export(str(made / "architecture.json"), tmp_path / "again")
    assert load_bundle(found) == (small(), None)


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="other files"):
        export_bundle(small(), None, tmp_path, Card(title="Test"))
    with pytest.raises(RunError, match="is a file"):
        export_bundle(small(), None, tmp_path / "thesis.tex", Card(title="Test"))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_weights_that_diverged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="NaN or infinity"):
        export_bundle(
            small(), {"conv1.weight": torch.full((2,), float("nan"))}, tmp_path / "b", Card(title="Test")
        )
    assert list(tmp_path.iterdir()) == []


def test_damaged_bundles_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no bundle in"):
        load_bundle(tmp_path)
    folder = export_bundle(small(), warmed(small()).state_dict(), tmp_path / "b", Card(title="Test"))
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"weights\.safetensors is not the file that bundle\.json declares"):
        load_bundle(folder)
    (folder / "weights.safetensors").write_bytes(whole)
    other = export_bundle(small(block="bottleneck"), None, tmp_path / "c", Card(title="Test"))
    (folder / "architecture.json").write_bytes((other / "architecture.json").read_bytes())
    with pytest.raises(RunError, match=r"architecture\.json is not the file that bundle\.json declares"):
        load_bundle(folder)
    # Not even where somebody declares what was mixed.
    declare_again(folder)
    with pytest.raises(RunError, match="two bundles were mixed"):
        load_bundle(folder)
    for text in (
        "[]",
        '{"family": "crnas.resnet"}',
        '{"family": 1, "version": [], "settings": 2, "genes": 3}',
    ):
        (folder / "architecture.json").write_text(text)
        declare_again(folder)
        with pytest.raises(RunError, match="is no architecture"):
            load_bundle(folder)


def test_cut_weights_stop_the_stranger_too(tmp_path: Path) -> None:
    folder = export_bundle(small(), warmed(small()).state_dict(), tmp_path / "b", Card(title="Test"))
    space: dict[str, object] = {"__name__": "backbone"}
    exec(compile((folder / "backbone.py").read_text(), "backbone.py", "exec"), space)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    read = space["read_safetensors"]
    assert callable(read)
    with pytest.raises(ValueError, match="it is damaged, cut short or no safetensors file"):
        read(str(weights))


def test_source_is_the_searched_class_and_imports_only_torch() -> None:
    source = backbone_source(small())
    assert foreign_imports(source) == set()
    assert family_of(small()).source.read_text().rstrip() in source
    assert foreign_imports("import numpy.linalg\nfrom . import x\nfrom search_spaces.a import b") == {
        "numpy",
        ".",
        "search_spaces",
    }


def test_unknown_family_is_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="unknown family 'alien'"):
        backbone_source(Architecture(family="alien", settings=Genes({}), genes=Genes({})))
