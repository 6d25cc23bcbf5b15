"""Targets: what is found, and one clear sentence for everything that is not, before anything is spent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.config import Layered, read_yaml, to_data
from nas.controllers.catalog import make_own_controller
from nas.controllers.random import RandomSearch
from nas.methods.any_space import any_space
from nas.methods.catalog import check_search, procedure
from nas.methods.one_phase import require_network
from nas.recipes.any_space import AnySpaceRecipe
from nas.run import Run
from nas.targets import anchor, gather, portable, read_recipe
from nas.testing import ToySpace
from search_spaces.architecture import Architecture, Genes
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError
from search_spaces.families import family_of
from search_spaces.targets import address, anchored, bare, file_of, load, make

RECIPES = Path(__file__).parent / "recipes"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def one(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return one


def sentence(attempt: Callable[[], object]) -> str:
    with pytest.raises((ConfigError, InvalidArchitecture)) as caught:
        attempt()
    return str(caught.value)


def test_a_target_is_a_file_or_a_module() -> None:
    assert file_of("a/b.py:C") == Path("a/b.py")
    assert file_of("a.b:C") is None and file_of("crnas.resnet") is None
    assert anchored("b.py:C", Path("/x/y")) == "/x/y/b.py:C"
    assert anchored("../b.py:C", Path("/x/y")) == "/x/b.py:C"
    assert anchored("/z/b.py:C", Path("/x/y")) == "/z/b.py:C"
    assert anchored("a.b:C", Path("/x")) == bare("a.b:C") == "a.b:C"
    assert bare("/x/y/b.py:C") == "b.py:C"
    assert load("nas.controllers.random:RandomSearch") is RandomSearch
    assert address(RandomSearch) == "nas.controllers.random:RandomSearch"


def test_a_file_is_one_module_and_an_edited_file_another(write: Write) -> None:
    file = write("thing.py", "class Thing:\n    worth = 1\n")
    first = load(f"{file}:Thing")
    assert load(f"{file}:Thing") is first and address(first) == f"{file}:Thing"
    write("thing.py", "class Thing:\n    worth = 2\n")  # as long, and within the same second
    second = load(f"{file}:Thing")
    assert (first.worth, second.worth) == (1, 2)  # type: ignore[attr-defined]
    assert not list(file.parent.glob("__pycache__"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Thin:\n    pass\n", "there is no 'Thing'; did you mean 'Thin'? classes there are ['Thin']"),
        ("Thing = 3\n", "but 'Thing' there is no class; classes there are []"),
        ("import thing_that_is_missing\n", "No module named 'thing_that_is_missing' (line 1)"),
        ("import neighbour\n", "does not see its neighbours"),
        ("from . import neighbour\n", "A target is one file, no part of a package"),
        ("class Thing\n", "SyntaxError: expected ':'"),
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
    ],
)
def test_what_a_file_lacks_is_said(text: str, words: str, write: Write) -> None:
    write("neighbour.py", "")
    file = write("thing.py", text)
    said = sentence(lambda: load(f"{file}:Thing"))
    assert str(file) in said and words in said, said


def test_what_is_no_target_is_said(write: Write) -> None:
    file = write("thing.py", "")
    assert "write my_file.py:MyClass" in sentence(lambda: load("thing"))
    missing = sentence(lambda: load(f"{file.parent}/thin.py:Thing"))
    assert "thin.py: cannot be read (No such file or directory); did you mean 'thing.py'?" in missing
    assert "the module 'no_such' cannot be imported" in sentence(lambda: load("no_such:Thing"))


def test_options_are_checked_against_annotations() -> None:
    class Thing:
        def __init__(self, given: int, *, sizes: tuple[int, ...], rate: float = 0.5, bare=1) -> None:  # type: ignore[no-untyped-def]
            self.all = (given, sizes, rate, bare)
            if rate > 1:
                raise ValueError("rate is a share")

    def made(**options: Any) -> Thing:
        return make(Thing, options, name="Thing", given={"given": 7, "unused": 1})

    assert made(sizes=[1, 2]).all == (7, (1, 2), 0.5, 1)
    lines = sentence(lambda: made(sizes=[1, "2"], rats=1, rate="x", bare=2)).splitlines()
    assert lines[0].startswith("options.sizes.1: found '2'; input should be a valid integer")
    assert lines[1] == (
        "options.rats: Thing has no such option; did you mean 'rate'? allowed are ['bare', 'rate', 'sizes']"
    )
    assert lines[2].startswith("options.rate: found 'x'; input should be a valid number")
    assert lines[3].startswith("options.bare: the argument has no annotation in Thing")
    assert sentence(made) == "options.sizes: is missing; Thing needs it"
    assert "options.given: Thing has no such option" in sentence(lambda: made(given=3, sizes=[]))
    assert "Thing refuses {'sizes': [], 'rate': 2}: rate is a share" in sentence(
        lambda: made(sizes=[], rate=2)
    )


CLASSES = """
from nas.controllers.random import RandomSearch
from search_spaces.space import SearchSpace
from trainers.detectors.detector import Detector

class Mute:
    def ask(self, history):
        return None

class Spaceless(RandomSearch):
    def __init__(self, *, seed: int, budget: int) -> None:
        pass

class Half(SearchSpace):
    name = "half"
    def values(self, architecture):
        return {}

class Dark(Detector):
    def losses(self, images, targets):
        return {}

class Silent:
    def __init__(self, depth: int = 1) -> None:
        pass
"""
OWN_SPACE = "space={target: my_space.py:KernelSpace}"


@pytest.mark.parametrize(
    ("recipe", "override", "words"),
    [
        ("tiny", "stages.controller={target: f.py:Mute}", "stages.controller.target: found '.*f.py:Mute', which is no "
         "controller: it lacks winner"),
        ("tiny", "dilations.controller={target: f.py:Spaceless, budget: 3}",
         "dilations.controller.target: Spaceless has to take the space"),
        ("tiny", "stages.controller={target: f.py:Nobody}", "stages.controller.target: found .* there is no 'Nobody'"),
        ("tiny", "stages.controller={name: random, target: f.py:Mute}",
         "stages.controller.target: found .*exactly one"),
        ("tiny", "stages.controller={budget: 3}",
         "stages.controller.target: found None; give exactly one of name, target"),
        ("tiny", "stages.controller={target: 'nas.controllers.random:RandomSearch', options: {rate: 1}}",
         "stages.controller.options.rate: RandomSearch has no such option(.|\n)*controller.budget: RandomSearch needs"),
        ("tiny", "detector={target: f.py:Mute}",
         "detector.target: found .*it has to inherit trainers.detectors.detector"),
        ("tiny", "detector={target: f.py:Dark}", "detector.target: found .*of .*Detector it lacks detections"),
        ("tiny", "detector={name: fcos, target: f.py:Dark}", "detector.target: found .*allowed is null beside a name"),
        ("tiny", "detector={options: {cells: 1}}", "detector.options: allowed is {} without a target"),
        ("tiny_spinenet",
         "detector={target: my_detector.py:Points, options: {cell: 1}, pyramid: none, fpn_channels: 16, "
         "levels: [p3, p4, p5, p6, p7]}", "detector.options.cell: Points has no such option; did you mean 'cells'"),
        ("my_search", "space={target: f.py:Half}", "space.target: found .*lacks architecture, baseline, genes"),
        ("my_search", "space={target: f.py:Mute}",
         "space.target: found .*has to inherit search_spaces.space.SearchSpace"),
        ("my_search", "space={name: kernels}", "space.name: unknown space 'kernels'"),
        ("my_search", "space={name: kernels, options: {a: 1}}", "space.options: allowed is {} without a target"),
        ("my_search", "space.options={widths: [8, 8]}", "space.options.widths.2: found"),
        ("my_search", "space.options={kernels: [3, 4]}", "space: holds networks that cannot be built: kernels: found"),
        ("my_search", "search.proxy={target: f.py:Silent}", "search.proxy.target: found .*lacks __call__"),
        ("my_search", "search.proxy.options={images: many}", "search.proxy.options.images: found 'many'"),
        ("my_search", "search.proxy={}", "search.proxy.target: found None; give exactly one of train, target"),
        ("my_search", "retrain.rivals=[stages]", "retrain.rivals: found .*a step of CR-NAS"),
    ],
)  # fmt: skip
def test_mistakes_are_found_at_the_door(
    recipe: str,
    override: str,
    words: str,
    page_of_extensions: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = page_of_extensions(tmp_path / "mine")
    (folder / "f.py").write_text(CLASSES)
    for one in RECIPES.glob("*.yaml"):
        (folder / one.name).write_text(one.read_text())
    monkeypatch.chdir(folder)
    path = folder / f"{recipe}.yaml"
    with pytest.raises(ConfigError, match=words):
        checked = check_search(read_recipe(path, [override]), source=str(path))
        procedure(checked).check_recipe(checked, source=str(path))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("my_network.py", "import torch\n", "import torch\nimport numpy\n", "my_network.py: imports numpy; the file"),
        ("my_network.py", "8 * 2**index", "4 * 2**index", "its network Plain declares {'c3': (8, 4)"),
        ("my_network.py", "def initialise", "def initialize", "lacks initialise(network, generator)"),
        ("my_network.py", "class Plain", "class Plane", "there is no 'Plain'; did you mean 'Plane'?"),
        ("my_space.py", '"my_network.py"', '"my_net.py"', "my_net.py: cannot be read (No such file or directory); did"),
        ("my_space.py", "FAMILY.name, settings", '"plain", settings', "cannot read an architecture of plain version 1"),
    ],
)  # fmt: skip
def test_a_network_that_breaks_its_word_is_found_at_the_door(
    file: str,
    old: str,
    new: str,
    words: str,
    page_of_extensions: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    folder = page_of_extensions(tmp_path / "mine")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    space = any_space(AnySpaceRecipe(target=f"{folder}/my_space.py:KernelSpace"))
    assert words in sentence(lambda: require_network(space))


def test_a_family_is_found_by_its_target_alone(
    page_of_extensions: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = page_of_extensions(tmp_path / "mine")
    written = Architecture(
        family="my_space.py:PlainFamily",
        settings=Genes({"widths": (8, 8, 8)}),
        genes=Genes({"kernels": (3, 3, 3)}),
    )
    here = written.at(folder)
    assert here.digest == written.digest and here.to_dict() == written.to_dict()
    assert family_of(here) is family_of(here) and family_of(here).name == f"{folder}/my_space.py:PlainFamily"
    assert "family: " in sentence(lambda: family_of(written.at(tmp_path)))
    noun = sentence(lambda: family_of(replace(here, family=f"{folder}/my_space.py:KernelSpace")))
    assert "no family of networks: it has to inherit search_spaces.family.Family" in noun


def test_a_controller_of_ones_own_drives_a_method_of_the_house(
    page_of_extensions: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = page_of_extensions(tmp_path / "mine")
    target = f"stages.controller={{target: {folder}/my_controller.py:HillClimb, budget: 3}}"
    checked = check_search(read_recipe(RECIPES / "tiny.yaml", [target]), source="tiny.yaml")
    procedure(checked).check_recipe(checked, source="tiny.yaml")
    run = Run.create(tmp_path / "run", checked)
    assert run.data["stages"]["controller"]["target"] == "targets/my_controller.py:HillClimb"
    assert sorted(path.name for path in run.home.iterdir()) == ["my_controller.py", "targets.json"]
    again = Run.open(tmp_path / "run")
    found = make_own_controller(
        again.recipe.stages.controller.target,  # type: ignore[attr-defined]
        space=ToySpace(),
        seed=1,
        budget=3,
        options={"warm_up": 2},
    )
    assert type(found).__name__ == "HillClimb" and found.warm_up == 2  # type: ignore[attr-defined]


def test_recipes_name_files_relative_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/r.yaml").write_text(
        "search: {proxy: {target: p.py:P, options: {target: q.py:Q}}}\nx: [1]\n"
    )
    monkeypatch.chdir(tmp_path)
    data = read_recipe(Path("a/r.yaml"), ["detector.target=d.py:D"])
    assert data["search"]["proxy"] == {"target": f"{tmp_path}/a/p.py:P", "options": {"target": "q.py:Q"}}
    assert data["detector"]["target"] == f"{tmp_path}/d.py:D"
    assert portable(data)["detector"]["target"] == "targets/d.py:D"
    assert anchor(portable(data), Path("/x"))["search"]["proxy"]["target"] == "/x/targets/p.py:P"


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.py").write_text(name)
    files = [tmp_path / "a/f.py", tmp_path / "b/f.py"]
    assert "two of the files are called f.py" in sentence(
        lambda: gather(files, tmp_path / "run", begun=False)
    )
    gather(files[:1], tmp_path / "run", begun=False)
    with pytest.raises(RunError, match=r"b/f\.py has changed since"):
        gather(files[1:], tmp_path / "run", begun=True)
    gather(files[:1], tmp_path / "run", begun=True)


def test_recipes_without_targets_are_left_alone(tmp_path: Path) -> None:
    recipe = check_search(read_yaml(RECIPES / "tiny.yaml"), source="tiny.yaml")
    run = Run.create(tmp_path / "run", recipe)
    assert run.data == to_data(recipe) and not run.home.exists()


def test_what_a_file_extends_keeps_its_place_and_its_folder(tmp_path: Path) -> None:
    """A wrong value is blamed on the file in which it stands; a target is looked for beside the file that says it."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/base.yaml").write_text("name: b\nseed: seven\ncontroller: {target: mine.py:Mine}\n")
    (tmp_path / "top.yaml").write_text("extends: base/base.yaml\nname: t\n")
    data = read_recipe(tmp_path / "top.yaml", ["workers=2"])
    assert isinstance(data, Layered) and data.origins["seed"] == str(tmp_path / "base/base.yaml")
    assert data["controller"]["target"] == f"{tmp_path / 'base/mine.py'}:Mine"
