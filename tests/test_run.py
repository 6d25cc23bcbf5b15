"""The run directory: what makes it new, what it refuses, and what it says of itself."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import nas.run
from nas.config import check, dump_yaml, read_yaml, to_data
from nas.methods.spaces import baseline_architecture, stage_space
from nas.recipes.crnas import CRNASRecipe
from nas.resolve import read_architecture
from nas.run import Run, environment
from search_spaces.architecture import digest_of
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError

RECIPE = check(CRNASRecipe, read_yaml(Path(__file__).parent / "recipes/tiny.yaml"), source="tiny.yaml")


def test_the_recipe_is_written_first_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    whole = nas.run.write_atomic

    def noted(path: Path, content: bytes) -> None:
        written.append(path.name)
        whole(path, content)

    monkeypatch.setattr(nas.run, "write_atomic", noted)
    run = Run.create(tmp_path / "a/b", RECIPE)
    assert written[0] == "recipe.yaml"
    assert run == Run.open(tmp_path / "a/b")
    assert not list(run.directory.glob(".*")), "no temporary file is left"
    text = (run.directory / "recipe.yaml").read_text()
    assert run.digest in text and f"nas resume {run.directory}" in text
    assert yaml.safe_load(text) == to_data(RECIPE), "resolved: defaults are written out"


def test_a_kill_before_the_recipe_is_whole_leaves_a_new_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Run.create(directory, RECIPE)
    assert not (directory / "recipe.yaml").exists()
    with pytest.raises(RunError, match=r"no recipe\.yaml"):
        Run.open(directory)
    assert Run.create(directory, replace(RECIPE, seed=9)).recipe.seed == 9


def test_a_directory_without_recipe_counts_as_new(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run = Run.create(tmp_path, RECIPE)
    assert run.recipe == RECIPE
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_same_recipe_opens_and_another_is_refused(tmp_path: Path) -> None:
    first = Run.create(tmp_path, RECIPE)
    before = (tmp_path / "recipe.yaml").read_bytes()
    assert Run.create(tmp_path, RECIPE) == first
    with pytest.raises(RunError) as caught:
        Run.create(tmp_path, replace(RECIPE, seed=4))
    assert "another recipe" in str(caught.value) and f"nas resume {tmp_path}" in str(caught.value)
    assert (tmp_path / "recipe.yaml").read_bytes() == before


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(RunError, match="cannot make the run directory"):
            Run.create(path, RECIPE)


def test_an_edited_recipe_is_checked_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path, RECIPE)
    (tmp_path / "recipe.yaml").write_text(dump_yaml({**to_data(RECIPE), "sede": 1}))
    with pytest.raises(ConfigError, match=r"recipe\.yaml: sede: unknown key; did you mean 'seed'"):
        Run.open(run.directory)


def test_json_files_come_back_and_damage_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path, RECIPE)
    assert run.read_json("a/b.json") is None
    run.write_json("a/b.json", {"x": [1, 2.5, None]})
    found = run.read_json("a/b.json")
    assert found is not None and found["x"] == [1, 2.5, None]
    assert found["environment"]["seed"] == RECIPE.seed and "torch" in found["environment"]["versions"]
    (tmp_path / "a/b.json").write_text("{")
    with pytest.raises(RunError, match=r"b\.json.*delete it and resume"):
        run.read_json("a/b.json")


def test_the_winner_is_for_people_and_for_describe(tmp_path: Path) -> None:
    run = Run.create(tmp_path, RECIPE)
    assert run.read_winner() is None and run.read_rivals() == {}
    baseline = baseline_architecture(RECIPE.space)
    winner = next(iter(stage_space(RECIPE.space).enumerate()))
    run.write_winner(winner, {"stages": winner}, baseline)
    assert run.read_winner() == winner
    assert run.read_rivals() == {"baseline": baseline, "stages": winner}
    assert read_architecture(str(tmp_path)) == read_architecture(str(tmp_path / "winner.yaml")) == winner


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.json", "{", RunError),
        ("a.json", "[1]", InvalidArchitecture),
        ("a.json", '{"family": "crnas.resnet"}', InvalidArchitecture),
        ("a.json", '{"family": "x", "version": "v", "settings": {}, "genes": {}}', InvalidArchitecture),
        ("a.json", '{"family": "x", "version": 1, "settings": {}, "genes": {}}', InvalidArchitecture),
        ("a.yaml", "architecture: 3", InvalidArchitecture),
        ("a.yaml", "a: [", ConfigError),
    ],
)
def test_a_file_without_an_architecture_is_named(
    name: str, text: str, error: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=name):
        read_architecture(str(tmp_path / name))


def test_names_and_folders_resolve(tmp_path: Path) -> None:
    assert read_architecture("resnet18") == get_architecture("resnet18")
    with pytest.raises(RunError, match=r"neither winner\.yaml nor architecture\.json"):
        read_architecture(str(tmp_path))
    with pytest.raises(InvalidArchitecture, match="did you mean resnet18"):
        read_architecture("resnet8")


def test_every_record_names_versions_hardware_threads_and_seeds() -> None:
    record = environment(RECIPE)
    assert record["versions"].keys() >= {"python", "vertebra", "torch", "torchvision", "optuna", "numpy"}
    assert record["hardware"]["cores"] == os.cpu_count() and record["hardware"]["processor"]
    assert (record["seed"], record["threads"], record["workers"], record["device"]) == (3, 1, 1, "auto")
    assert record["recipe"] == digest_of(to_data(RECIPE))


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", RECIPE)
    assert run.split_seed == Run.create(tmp_path / "b", replace(RECIPE, name="other")).split_seed
    assert run.split_seed != Run.create(tmp_path / "c", replace(RECIPE, seed=4)).split_seed


def test_a_run_can_be_extended_by_seeds_and_by_nothing_that_is_done(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", RECIPE)
    assert run.recipe.retrain is not None
    run.write_json("done.json", {})
    more = run.extended(["retrain.seeds=5", "workers=2", "engine=processes"])
    assert run.read_json("done.json") is not None and Run.open(tmp_path / "run").recipe == run.recipe
    more.keep()
    assert run.read_json("done.json") is None, "there is more to do"
    assert more.recipe == Run.open(tmp_path / "run").recipe
    assert more.recipe.retrain == replace(run.recipe.retrain, seeds=5) and more.recipe.workers == 2
    assert more.recipe.engine == "processes"
    more = more.extended(["ray.address=auto", "ray.gpus=0.5"])
    more.keep()
    assert more.recipe.ray.address == "auto"
    more = more.extended(["data.cache=pixels"])
    more.keep()
    assert Run.open(tmp_path / "run").recipe.data.cache == str(Path("pixels").resolve())
    assert run.extended([]).recipe == run.recipe
    with pytest.raises(
        RunError,
        match=r"--set seed=4: a run can only be extended; allowed are budget, .*, ray, threads, .*, data\.cache, retr",
    ):
        run.extended(["seed=4", "workers=3"])
    with pytest.raises(
        RunError, match=r"retrain\.seeds=4: this run has 5; trainings are added, not taken away"
    ):
        more.extended(["retrain.seeds=4"])
    with pytest.raises(ConfigError, match="workers: found 0"):
        more.extended(["workers=0"])
    assert Run.open(tmp_path / "run").recipe == more.recipe


def test_a_run_resumed_with_other_threads_says_that_bits_will_differ(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", RECIPE)
    assert run.other_bits() is None
    other = run.extended([f"threads={RECIPE.threads + 1}"])
    text = other.other_bits()
    assert text is not None and text.startswith(
        f"threads: begun with {RECIPE.threads}, now {RECIPE.threads + 1}:"
    )
    assert other.extended([f"threads={RECIPE.threads}"]).other_bits() is None
