"""Recipes at the door: what YAML means, and every mistake named with its place before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nas.config import apply_overrides, check, dump_yaml, parse_yaml, read_yaml, to_data
from nas.methods.catalog import METHODS, check_search
from nas.recipes.controller import ControllerRecipe
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.pretrain_job import PretrainRecipe
from nas.recipes.train_job import TrainJobRecipe
from search_spaces.errors import ConfigError

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
RECIPES = sorted((ROOT / "examples/recipes").glob("*.yaml")) + sorted((ROOT / "tests/recipes").glob("*.yaml"))


def value(text: str) -> Any:
    return parse_yaml(f"a: {text}", name="f")["a"]


def refusal(overrides: list[str], source: str = "r.yaml") -> list[str]:
    """The lines of the error that the tiny recipe with these overrides gives."""
    with pytest.raises(ConfigError) as caught:
        check(CRNASRecipe, apply_overrides(read_yaml(TINY), overrides), source=source)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("-1E+5", -1e5),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-3", -3),
        ("014", 14),
        ("0o14", 12),
        ("0x1F", 31),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        # These are other things in YAML 1.1, which PyYAML follows: booleans, dates, base 60, separators.
        ("off", "off"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_yaml_scalars_are_those_of_version_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected and type(found) is type(expected)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.sampled_from(
        ["1e-4", "off", "2024-01-01", "0o7", "12:30", "null", "~", "", "-", "=", "<<", "0x1", ".5"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcoffn10e", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_what_is_written_reads_back_equal(data: object) -> None:
    assert parse_yaml(dump_yaml({"a": data}), name="f") == {"a": data}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ["r.yaml", "line 4", "'c'", "line 3"]),
        ("a: [1\n", ["r.yaml", "not valid YAML", "line"]),
        ("a: \x00", ["r.yaml", "not valid YAML"]),
        ("[a]: 1", ["r.yaml", "line 1", "key"]),
        ("a: !!int x", ["r.yaml", "not valid YAML", "'x'"]),
        ("a: !!python/object/apply:os.getcwd []", ["r.yaml", "not valid YAML"]),
    ],
)
def test_unreadable_yaml_names_file_and_line(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, name="r.yaml")
    assert all(word in str(caught.value) for word in words), caught.value


def test_missing_recipe_names_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "crnas.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"did you mean .*crnas\.yaml"):
        read_yaml(tmp_path / "crnass.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match=r"mapping.*found list"):
        read_yaml(tmp_path / "list.yaml")


def write(folder: Path, **files: str) -> Path:
    """Recipe files by stem; the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_a_recipe_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    top = write(
        tmp_path,
        top="extends: middle.yaml\ntrain: {lr: 3, clip: null}\nlist: [9]\nnew: {a: 1}\n",
        middle="extends: parts/base.yaml\ntrain: {lr: 2, epochs: 5}\nlist: [1, 2, 3]\nsection: {}\n",
    )
    write(
        tmp_path / "parts",
        base="name: base\ntrain: {lr: 1, flip: true, clip: 10}\nlist: {a: 1}\nsection: {b: 1}\n",
    )
    assert read_yaml(top) == {
        "name": "base",
        "train": {"lr": 3, "flip": True, "clip": None, "epochs": 5},
        "list": [9],
        "section": {"b": 1},
        "new": {"a": 1},
    }


def test_of_several_extended_recipes_later_ones_win(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: [left.yaml, right.yaml]\nname: top\n",
        left="extends: base.yaml\na: left\nb: left\n",
        right="extends: base.yaml\nb: right\n",  # reads base.yaml a second time, which is no cycle
        base="a: base\nb: base\nc: {d: base}\n",
    )
    assert read_yaml(top) == {"name": "top", "a": "base", "b": "right", "c": {"d": "base"}}


def test_errors_name_the_file_in_which_the_value_stands(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="extends: base.yaml\ntrain: {momentun: 0.5, batch_size: 0}\n",
        base="name: x\ntrain: {epochs: 2, lr: -1, batch_size: 4, milestones: [0.5]}\ndetector: {nms: 7}\n",
    )

    def lines(*overrides: str) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            check(TrainJobRecipe, apply_overrides(read_yaml(top), overrides), source="top.yaml")
        parts = [line.split(": ", 2) for line in str(caught.value).splitlines()]
        return {path: Path(file).name for file, path, _ in parts}

    assert lines() == {
        "train.momentun": "top.yaml",
        "train.batch_size": "top.yaml",
        "train.lr": "base.yaml",
        "detector.nms": "base.yaml",
    }
    assert lines("train.lr=0", "detector.nms=0.5")["train.lr"] == "top.yaml", "an override is the caller's"
    write(tmp_path, base="name: x\ntrain: {epochs: 2, milestones: [0.5, x]}\n")
    assert lines()["train.milestones.1"] == "base.yaml", "a list's file is that of its parts"


def test_recipes_that_cannot_be_extended_name_both_files_and_the_chain(tmp_path: Path) -> None:
    def refusal_of(**files: str) -> str:
        path = write(tmp_path, **files)
        with pytest.raises(ConfigError) as caught:
            read_yaml(path)
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert refusal_of(a="extends: b.yaml", b="extends: c.yaml", c="extends: a.yaml") == (
        "c.yaml: extends: leads back to a.yaml: a.yaml -> b.yaml -> c.yaml -> a.yaml; a recipe cannot extend itself"
    )
    assert "a.yaml -> a.yaml" in refusal_of(a="extends: a.yaml")
    missing = refusal_of(a="extends: b.yaml", b="extends: base_on.yaml", base_one="x: 1")
    assert missing.startswith("base_on.yaml: cannot read the recipe: ")
    assert "did you mean base_one.yaml?" in missing and missing.endswith("(extended by b.yaml <- a.yaml)")
    assert refusal_of(a="extends: b.yaml", b="[1]") == (
        "b.yaml: a recipe is a mapping of keys to values; found list (extended by a.yaml)"
    )
    assert refusal_of(a="extends: b.yaml", b="x: [1").startswith(
        "b.yaml (extended by a.yaml): is not valid YAML"
    )
    for value in ("3", "[]", "[b.yaml, 3]", "null", "{b: c}"):
        text = refusal_of(a=f"extends: {value}")
        assert text.startswith("a.yaml: extends: found ") and "allowed is the path of a recipe file" in text


def test_overrides_reach_every_depth_and_leave_the_input_alone() -> None:
    data = {"seed": 1, "dilations": None}
    overrides = [
        "data.root=a/b",
        "dilations.controller.name=greedy",
        "stages.train.lr=1e-4",
        "seed=7",
        "name=",
    ]
    assert apply_overrides(data, overrides) == {
        "seed": 7,
        "dilations": {"controller": {"name": "greedy"}},
        "data": {"root": "a/b"},
        "stages": {"train": {"lr": 1e-4}},
        "name": "",
    }
    assert data == {"seed": 1, "dilations": None}


def test_bad_overrides_are_all_named() -> None:
    data = read_yaml(TINY)
    overrides = ["seed.x=1", "space.branches.0=[1]", "seed", "=3", "a..b=1"]
    with pytest.raises(ConfigError) as caught:
        apply_overrides(data, overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for line, text in zip(lines, overrides, strict=True):
        assert f"--set {text!r}" in line
    assert "seed holds 3, which has no keys" in lines[0]
    assert "--set data.root=DIR" in lines[2]
    with pytest.raises(ConfigError, match="--set seed: is not valid YAML"):
        apply_overrides(data, ["seed=[1"])


def test_all_errors_at_once_with_file_path_found_and_allowed() -> None:
    lines = refusal(
        [
            "sede=3",
            "data.digits.train_image=3",
            "stages.controler.budget=1",
            "stages.controller.budget=x",
            "stages.supernet.train.epochs=3",
            "stages.supernet.train.lr=.nan",
            "dilations.supernet.sharing=none",
            "data.image_size=[1, 2, 3]",
            "workers='2'",
            "retrain.train=null",
        ]
    )
    assert all(line.startswith("r.yaml: ") for line in lines), lines
    found = {line.split(": ")[1]: line for line in lines}
    assert len(found) == len(lines), "one line a path"
    assert "did you mean 'seed'? Allowed here: name, method, seed" in found["sede"]
    assert "did you mean 'data.digits.train_images'?" in found["data.digits.train_image"]
    assert "did you mean 'stages.controller'? Allowed here: supernet, controller" in found["stages.controler"]
    assert "found 'x'" in found["stages.controller.budget"] and "integer" in found["stages.controller.budget"]
    assert "found nan" in found["stages.supernet.train.lr"]
    assert "'independent' or 'prefix'" in found["dilations.supernet.sharing"]
    assert "found [1, 2, 3]" in found["data.image_size"] and ", or: " in found["data.image_size"]
    assert "found '2'" in found["workers"]
    assert "found None" in found["retrain.train"]


def test_what_types_cannot_say_is_said_too() -> None:
    assert "exactly one of epochs (3.0) and steps (12)" in refusal(["stages.supernet.train.epochs=3"])[0]
    assert refusal(["stages.supernet.train.epochs=3"])[0].startswith(
        "r.yaml: stages.supernet.train.steps: found 12; "
    )
    assert refusal(["workers=0"]) == ["r.yaml: workers: found 0; allowed is at least 1"]
    assert refusal(["batch=0"]) == ["r.yaml: batch: found 0; allowed is at least 1"]
    assert refusal(["retries=-1"]) == ["r.yaml: retries: found -1; allowed is 0 or more"]
    assert "choose engine processes" in refusal(["deadline=60"])[0]
    assert "above 0 seconds" in refusal(["deadline=0", "engine=processes"])[0]
    assert "'serial', 'processes' or 'ray'" in refusal(["engine=threads"])[0]
    assert "run on a node of the cluster" in refusal(["ray.address=ray://head:10001"])[0]
    assert refusal(["ray.gpus=-1"])[0].startswith("r.yaml: ray.gpus: found -1")
    assert refusal(["ray.cpus=0"])[0].startswith("r.yaml: ray.cpus: found 0")
    assert "at least the 2 threads of each worker" in refusal(["ray.cpus=1", "threads=2"])[0]
    assert refusal(
        ["stages.supernet.train.lr=-1", "data.hold_out=2", "detector.nms=0", "detector.head_convs=-1"]
    ) == [
        "r.yaml: data.hold_out: found 2.0; allowed is a share between 0 and 1",
        "r.yaml: detector.head_convs: found -1; allowed is 0 or more",
        "r.yaml: stages.supernet.train.lr: found -1.0; allowed is above 0",
        "r.yaml: detector.nms: found 0.0; allowed is between 0 and 1",
    ]
    assert "add a dilations section" in refusal(["dilations=null", "retrain.rivals=[random]"])[0]


def test_half_precision_says_why_there_is_one_kind_of_it() -> None:
    data = {"name": "t", "train": {"steps": 1, "amp": "fp16"}}
    with pytest.raises(ConfigError) as refused:
        check(TrainJobRecipe, data, source="t.yaml")
    assert str(refused.value) == (
        "t.yaml: train.amp: found 'fp16'; allowed is 'off', 'bf16' or 'auto': bf16 has the range of float32; gradients "
        "in fp16 would need a scaled loss, which there is not here"
    )
    # No reason is put to what has none.
    with pytest.raises(ConfigError, match=r"train\.optimizer: found 'lion'; allowed is 'sgd' or 'adamw'$"):
        check(TrainJobRecipe, {"name": "t", "train": {"steps": 1, "optimizer": "lion"}}, source="t.yaml")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        check(CRNASRecipe, {"name": "x"}, source="r.yaml")
    assert str(caught.value) == "r.yaml: stages: is missing; add it"


def test_options_of_an_optuna_sampler_are_a_mapping_again() -> None:
    options = {"sampler": "tpe", "options": {"n_startup_trials": 4, "multivariate": True, "gamma": None}}
    found = check(ControllerRecipe, {"name": "optuna", "budget": 9, "options": options}, source="r")
    assert found.options == options
    assert found.options["options"]["multivariate"] is True  # type: ignore[index,call-overload]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_parses_and_comes_back_equal(path: Path) -> None:
    overrides = [] if read_yaml(path)["data"].get("source") == "digits" else ["data.root=somewhere"]
    method = str(read_yaml(path).get("method", "crnas"))
    trainings = {"train": TrainJobRecipe, "protocol": TrainJobRecipe, "pretrain": PretrainRecipe}
    kind = trainings.get(path.stem.partition("_")[0], METHODS[method].recipe)
    recipe = check(kind, apply_overrides(read_yaml(path), overrides), source=str(path))
    again = check(kind, parse_yaml(dump_yaml(to_data(recipe)), name="again"), source="again")
    assert again == recipe
    assert yaml.safe_load(dump_yaml(to_data(recipe))) == to_data(recipe), "for readers of YAML 1.1 too"


def test_there_is_a_recipe_for_each_data_set_of_the_issue() -> None:
    names = {path.name for path in RECIPES}
    assert {f"crnas_{data}.yaml" for data in ("digits", "bccd", "nuclei", "aquarium")} <= names
    for name in ("bccd", "nuclei", "aquarium"):
        data = read_yaml(ROOT / f"examples/recipes/crnas_{name}.yaml")["data"]
        assert data.get("source", "coco") == "coco" and data.get("root") is None


def test_a_wrong_type_does_not_hide_a_wrong_value_beside_it():
    data = {
        "name": "x",
        "data": {"source": "digitz", "hold_out": 1.5},
        "stages": {"controller": {"name": "random"}},
    }
    with pytest.raises(ConfigError) as caught:
        check(CRNASRecipe, data, source="r.yaml")
    lines = str(caught.value).splitlines()
    assert any(line.startswith("r.yaml: data.source: found 'digitz'") for line in lines)
    assert any("data.hold_out: found 1.5; allowed is a share between 0 and 1" in line for line in lines)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"r\.yaml: method: found 'crnass'; did you mean 'crnas'\? allowed are"
    ):
        check_search({"name": "x", "method": "crnass"}, source="r.yaml")


def test_the_method_decides_what_a_recipe_may_say() -> None:
    assert isinstance(check_search(read_yaml(TINY), source=str(TINY)), METHODS["crnas"].recipe)
