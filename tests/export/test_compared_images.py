"""On which images of ``val`` a file is compared, as a person says it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.export.formats import read_report
from nas.export.subject import REAL_IMAGES, bundled
from nas.methods.exporting import export
from nas.recipes.train_job import TrainJobRecipe
from nas.resolve import read_architecture
from nas.training import TrainingJob, train_to_completion
from nas.training_files import CLASSIFIER, TRAINING
from search_spaces.errors import ConfigError, DataError

RECIPE = Path(__file__).parents[1] / "recipes/train.yaml"
VAL = 20


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of one step whose val has twenty images."""
    words = [
        "train.epochs=null",
        "train.steps=1",
        "train.evaluate_every=0",
        f"data.digits.val_images={VAL}",
    ]
    recipe = check(TrainJobRecipe, apply_overrides(read_yaml(RECIPE), words), source=str(RECIPE))
    folder = tmp_path_factory.mktemp("training")
    train_to_completion(
        TrainingJob(architecture=read_architecture("resnet18"), recipe=recipe, directory=folder)
    )
    return folder


def compared(training: Path, to: Path, *words: Any) -> list[dict[str, Any]]:
    words = ("export", training, "--to", to, "--format", "source", *words)
    result = CliRunner().invoke(app, [str(one) for one in words])
    assert result.exit_code == 0, result.output
    return list(read_report(to)["artefacts"])


def test_as_many_images_of_val_as_one_says(training: Path, tmp_path: Path) -> None:
    folder = export(str(training), tmp_path / "bundle")
    data = check(
        TrainJobRecipe,
        apply_overrides(read_yaml(RECIPE), [f"data.digits.val_images={VAL}"]),
        source=str(RECIPE),
    ).data
    for images, count, on in (
        (None, REAL_IMAGES, f"16 of {VAL} images of val"),
        (3, 3, f"3 of {VAL} images of val"),
        (500, VAL, f"{VAL} images of val"),
        ("all", VAL, f"{VAL} images of val"),
    ):
        one = bundled(folder, data, images=images)  # type: ignore[arg-type]
        assert len(one.images) == count and one.on == on
        assert one.data is not None and len(one.data) == count
        assert len(one.few) == min(count, REAL_IMAGES)
    assert one.on_few == "16 images of val", "backbones are compared on a few, whose maps fit into memory"
    (source,) = (item for item in compared(training, tmp_path / "all", "--images", "all") if item["checks"])
    assert source["on"] == "16 images of val"


@pytest.mark.parametrize("said", ["0", "-1", "some", "1.5", ""])
def test_what_is_no_number_of_images_is_refused(training: Path, tmp_path: Path, said: str) -> None:
    result = CliRunner().invoke(
        app, ["export", str(training), "--to", str(tmp_path / "x"), f"--images={said}"]
    )
    assert result.exit_code != 0
    assert "allowed are all and numbers from 1" in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()


def test_images_that_are_not_there_are_a_sentence(training: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--images: found 4; .*for a run or a training, and resnet18 is"):
        export("resnet18", tmp_path / "x", ["source"], 4)
    classifier = tmp_path / "classifier"
    classifier.mkdir()
    for name in (CLASSIFIER, TRAINING):
        (classifier / name).touch()
    with pytest.raises(ConfigError, match=r"--images: found all; .*classifier is none"):
        export(str(classifier), tmp_path / "x", ["source"], "all")
    folder = export(str(training), tmp_path / "bundle")
    with pytest.raises(DataError, match="--images: all of val cannot be taken: there is no data set"):
        bundled(folder, None, images="all")
