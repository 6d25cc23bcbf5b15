"""The trained detector of a bundle: ``detector.json`` says how it is built, ``detector.safetensors`` holds its weights.

What is read is compared with what the architecture and the detector's recipe would have, built on torch's meta device,
before any memory is taken for it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from nas.config import check, to_data
from nas.export.manifest import ARCHITECTURE, LIMIT, Manifest, read_declared, read_manifest, verify
from nas.targets import anchor, portable
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import ConfigError, RunError
from search_spaces.strict_json import parse_json
from search_spaces.targets import FOLDER, bare, file_of
from trainers.data.detection_set import Category
from trainers.data.sizing import Fit, ImageSize
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.recipes import DetectorRecipe
from trainers.weights import Form, count_tensors, forms_of, read_weights

ARCHITECTURE_FILE = ARCHITECTURE
DETECTOR_FILE = "detector.json"
DETECTOR_WEIGHTS = "detector.safetensors"

_SMALLEST, _LARGEST = 32, 2**14
_CATEGORIES = 100_000
# A module may register what it replaces afterwards.
_SPARE_FACTOR, _SPARE = 4, 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedDetector:
    """A detector that was trained, as data and weights.

    Args:
        recipe: which detector.
        categories: position = label.
        image_size: (height, width) px of the padded images that it was trained on.
        fit: how a picture is resized before it is padded, as in the training.
        state: all weights.
    """

    recipe: DetectorRecipe
    categories: tuple[Category, ...]
    image_size: tuple[int, int]
    fit: Fit
    state: Mapping[str, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """What ``detector.json`` says."""
        size = self.fit.size
        return {
            "recipe": portable(to_data(self.recipe)),
            "categories": [{"id": one.id, "name": one.name} for one in self.categories],
            "image_size": list(self.image_size),
            "fit": list(size) if isinstance(size, tuple) else size,
            # Only where it is said of others than before: who reads no more than that reads these.
            **({"orientation": "either"} if self.fit.either_way else {}),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedDetector:
    """A bundle's detector, ready to be asked.

    Attributes:
        detector: on the CPU, in evaluation mode; takes images as :meth:`Detector.normalise` says.
        architecture: of its backbone.
        recipe: which detector.
        categories: position = label.
        image_size: (height, width) px of the padded images that it was trained on.
        fit: how a picture is resized, see :class:`TrainedDetector`.
        multiple: sides of padded images are multiples of this, px.
    """

    detector: Detector
    architecture: Architecture
    recipe: DetectorRecipe
    categories: tuple[Category, ...]
    image_size: tuple[int, int]
    fit: Fit
    multiple: int


def write_detector(directory: Path, trained: TrainedDetector) -> None:
    """Write ``detector.json``; the weights are the caller's to write."""
    text = json.dumps(trained.to_dict(), indent=1, ensure_ascii=False) + "\n"
    (directory / DETECTOR_FILE).write_text(text, encoding="utf-8")


def load_detector(directory: Path, *, trust_code: bool = False) -> LoadedDetector:
    """Read the trained detector of a bundle.

    Args:
        directory: of the bundle.
        trust_code: run the files of its maker's own that network or detector need (``targets/*.py``).

    Raises:
        RunError: no bundle, one without a detector, with code that is not trusted, or a file that is damaged, was
            changed, or does not hold what it has to; names the file.
    """
    manifest = read_manifest(directory)
    if manifest.kind != "detector":
        raise RunError(
            f"{directory} holds no trained detector, only a backbone; export a search that has retrained its winner, "
            "or a finished training: nas export TRAINING --to DIR"
        )
    verify(directory, manifest)
    architecture = read_bundled_architecture(directory, manifest)
    path = directory / DETECTOR_FILE
    data = parse_json(read_declared(directory, manifest, DETECTOR_FILE), path, limit=LIMIT)
    recipe, categories, image_size, fit = _described(data, path)
    own = require_trust(directory, manifest, (architecture.family, recipe.target or ""), trusted=trust_code)

    def build() -> Detector:
        backbone = family_of(architecture).build(architecture)
        return build_detector(recipe, backbone, len(categories), image_size, seed=0)

    weights = directory / DETECTOR_WEIGHTS
    if DETECTOR_WEIGHTS not in manifest.files:
        raise RunError(f"{weights} is not declared in the bundle; export it again")
    expected = expected_forms(build, weights, own=own)
    found = read_weights(weights, expected, sha256=manifest.files[DETECTOR_WEIGHTS].sha256)
    require_owner(weights, found.metadata, architecture)
    detector = build()
    detector.load_state_dict(found.tensors)
    body = detector.backbone
    return LoadedDetector(
        detector=detector.eval(),
        architecture=architecture,
        recipe=recipe,
        categories=categories,
        image_size=image_size,
        fit=fit,
        multiple=max(_SMALLEST, body.strides[len(body.levels) - 1]),
    )


def read_bundled_architecture(directory: Path, manifest: Manifest) -> Architecture:
    """The network of a bundle, checked by its family where that is one of the house.

    Raises:
        RunError: names the file.
    """
    path = directory / ARCHITECTURE_FILE
    data = parse_json(read_declared(directory, manifest, ARCHITECTURE_FILE), path, limit=LIMIT)
    try:
        architecture = Architecture.from_dict(data).at(directory / FOLDER)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} is no architecture ({error}); export the bundle again") from error
    if architecture.digest != manifest.architecture:
        raise RunError(
            f"{path} describes architecture {architecture.digest}, the bundle is of {manifest.architecture[:40]}; "
            "files of two bundles were mixed"
        )
    return architecture


def require_trust(directory: Path, manifest: Manifest, targets: Sequence[str], *, trusted: bool) -> bool:
    """Whether a bundle's network or detector is code of its maker's own, which has to be trusted and declared.

    Args:
        directory: of the bundle.
        manifest: of it.
        targets: what names them; those of the house are no targets.
        trusted: whether a person has said so.

    Raises:
        RunError: it is not trusted, or lies elsewhere.
    """
    own = [one for one in targets if ":" in one]
    for one in own:
        file = file_of(one)
        home = (directory / FOLDER).resolve()
        if file is not None and (file.parent != home or f"{FOLDER}/{file.name}" not in manifest.files):
            raise RunError(
                f"{directory} names {bare(one)}, and declares no {FOLDER}/{file.name}; export the bundle again"
            )
    if own and not trusted:
        raise RunError(
            f"{directory} brings code of its own, which would be run with all your rights: "
            f"{', '.join(map(bare, own))}. Read it, then say that you trust it: --trust-code, or trust_code=True"
        )
    return bool(own)


def require_owner(path: Path, metadata: Mapping[str, str], architecture: Architecture) -> None:
    """Refuse weights that say they belong to another network.

    Raises:
        RunError: names both.
    """
    owner = metadata.get("architecture")
    if owner is not None and owner != architecture.digest:
        raise RunError(
            f"{path} belongs to architecture {owner[:40]}, but the bundle describes {architecture.digest}; files of "
            "two bundles were mixed"
        )


def expected_forms(build: Any, weights: Path, *, own: bool) -> dict[str, Form]:
    """What a file of weights has to hold.

    Args:
        build: makes the network.
        weights: whose header bounds how many tensors the network may have, so that a file of a kilobyte does not ask
            for a network of a million layers.
        own: the network is somebody's own code, which is trusted and may not know the meta device.

    Raises:
        RunError: the network cannot be built, or has far more tensors than the file.
    """
    try:
        with torch.device("cpu" if own else "meta"), _at_most(count_tensors(weights), weights):
            network: nn.Module = build()
    except (ConfigError, RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"{weights.parent} describes a detector that cannot be built: {first}") from error
    return forms_of(network)


@contextmanager
def _at_most(count: int, weights: Path) -> Iterator[None]:
    """Stop a network that is being built once it has far more tensors than a file of weights."""
    left = _SPARE_FACTOR * count + _SPARE

    def note(*registered: object) -> None:
        nonlocal left
        del registered
        left -= 1
        if left < 0:
            raise RunError(
                f"{weights.parent} describes a network of more than {_SPARE_FACTOR * count + _SPARE} tensors, but "
                f"{weights.name} holds {count}"
            )

    hooks = [
        register(note)
        for register in (
            register_module_parameter_registration_hook,
            register_module_buffer_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _described(data: Any, path: Path) -> tuple[DetectorRecipe, tuple[Category, ...], tuple[int, int], Fit]:
    keys, free = {"recipe", "categories", "image_size", "fit"}, {"orientation"}
    if not isinstance(data, dict) or set(data) - free != keys or not isinstance(data["recipe"], dict):
        raise RunError(
            f"{path}: describes no detector; needed are exactly {sorted(keys)}, and orientation if need be"
        )
    try:
        recipe = check(DetectorRecipe, anchor(data["recipe"], path.parent), source=str(path))
    except ConfigError as error:
        raise RunError(str(error)) from error
    categories = data["categories"]
    if not isinstance(categories, list) or not 1 <= len(categories) <= _CATEGORIES:
        raise RunError(f"{path}: categories: needed is a list of 1 to {_CATEGORIES} of them")
    for one in categories:
        fits = isinstance(one, dict) and set(one) == {"id", "name"}
        if not fits or type(one["id"]) is not int or not isinstance(one["name"], str):
            raise RunError(
                f"{path}: categories: found {str(one)[:60]}; needed are id, a number, and name, a string"
            )
    numbers = [one["id"] for one in categories]
    if numbers != sorted(set(numbers)):
        raise RunError(f"{path}: categories: their ids are to rise, each once")
    size = _sides(data["image_size"], path, "image_size")
    found = data["fit"]
    within: ImageSize = None
    if isinstance(found, list):
        within = _sides(found, path, "fit")
    elif found is not None:
        within = _sides([found, found], path, "fit")[0]
    way = data.get("orientation", "fixed")
    if way != "fixed" and (way != "either" or not isinstance(within, tuple)):
        raise RunError(
            f"{path}: orientation: found {str(way)[:60]!r} with fit {found}; allowed: fixed, or either with two sides"
        )
    fit = Fit(within, either_way=way == "either")
    return recipe, tuple(Category(id=one["id"], name=one["name"]) for one in categories), size, fit


def _sides(value: object, path: Path, field: str) -> tuple[int, int]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and _SMALLEST <= side <= _LARGEST for side in value)
    ):
        return value[0], value[1]
    raise RunError(
        f"{path}: {field}: found {str(value)[:60]}; allowed are sides from {_SMALLEST} to {_LARGEST} px"
    )
