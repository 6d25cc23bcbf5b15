"""Networks trained alone beforehand, as a table in one small JSON file: the truth that proxies are measured against.

Each network of a table was trained from scratch under several seeds, all of them by one recipe, and evaluated at the
same epochs. With such a table a proxy is judged without training anything (:mod:`nas.methods.truth`), and a search can
be carried out in seconds: :class:`TabularProxy` looks scores up.

Torch-free.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed, InvalidArchitecture, RunError
from search_spaces.files import write_atomic

FORMAT = "vertebra-table-1"

Json = Any


@dataclass(frozen=True, kw_only=True)
class TabularNetwork:
    """One network and what its trainings came to.

    Args:
        architecture: the network.
        params: of the backbone.
        macs: of the backbone for one image of the table's size.
        scores: seed -> AP in percent at each of the table's epochs.
        seconds: that the trainings took, on one thread.
        latency_ms: of the backbone on the machine that the table names; None where it was not measured.
    """

    architecture: Architecture
    params: int
    macs: int
    scores: Mapping[int, tuple[float, ...]]
    seconds: float = 0.0
    latency_ms: float | None = None

    def score(self, seeds: Sequence[int], epoch: int = -1) -> float | None:
        """Mean AP over the seeds, at the epoch of this place; None where it was not trained under all of them."""
        if not seeds or any(seed not in self.scores for seed in seeds):
            return None
        return fmean(self.scores[seed][epoch] for seed in seeds)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Networks of one space, all trained and evaluated alike.

    Args:
        name: of the table.
        space: whose networks these are, in words.
        images_trained: in one epoch.
        epochs: at which the networks were evaluated; the last is the end of a training.
        image_size: (height, width) px.
        networks: in the order of the space.
        about: recipe, data, versions and whatever else says how the table was made.
    """

    name: str
    space: str
    images_trained: int
    epochs: tuple[float, ...]
    image_size: tuple[int, int]
    networks: tuple[TabularNetwork, ...]
    about: Mapping[str, Json] = field(default_factory=dict)

    @cached_property
    def by_digest(self) -> Mapping[str, TabularNetwork]:
        """The networks by the digest of their architecture."""
        return {one.architecture.digest: one for one in self.networks}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Under which every network was trained, ascending."""
        common = set.intersection(*(set(one.scores) for one in self.networks)) if self.networks else set()
        return tuple(sorted(common))

    def truth(self, seeds: Sequence[int] | None = None, epoch: int = -1) -> dict[str, float]:
        """Digest -> mean AP in percent.

        Args:
            seeds: over which; all that every network has when left out.
            epoch: place in ``epochs``.

        Raises:
            RunError: a network was not trained under all of these seeds, or no seed is complete yet.
        """
        chosen = self.seeds if seeds is None else tuple(seeds)
        if not chosen:
            raise RunError(
                f"table {self.name}: no seed is complete, so its {len(self.networks)} networks cannot be compared; "
                "train the rest with benchmarks/tables/build.py"
            )
        found = {digest: one.score(chosen, epoch) for digest, one in self.by_digest.items()}
        if any(value is None for value in found.values()):
            raise RunError(
                f"table {self.name}: not every network was trained under the seeds {list(chosen)}; "
                f"all were under {list(self.seeds)}"
            )
        return {digest: value for digest, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Json]:
        """As it lies in the file."""
        return {
            "format": FORMAT,
            "name": self.name,
            "space": self.space,
            **self.about,
            "image_size": list(self.image_size),
            "images_trained": self.images_trained,
            "epochs": list(self.epochs),
            "networks": [
                {
                    "architecture": one.architecture.to_dict(),
                    "digest": one.architecture.digest,
                    "params": one.params,
                    "macs": one.macs,
                    "latency_ms": one.latency_ms,
                    "seconds": one.seconds,
                    "AP": {str(seed): list(scores) for seed, scores in sorted(one.scores.items())},
                }
                for one in self.networks
            ],
        }


_OWN = {"format", "name", "space", "image_size", "images_trained", "epochs", "networks"}


def read_table(path: Path) -> Table:
    """A table from its file.

    Raises:
        RunError: no such file, or one that is no table of this format; says where it is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as a table: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RunError(f"{path}: format: found {found!r}; allowed is {FORMAT!r}")
    try:
        epochs = tuple(float(one) for one in data["epochs"])
        table = Table(
            name=str(data["name"]),
            space=str(data["space"]),
            images_trained=int(data["images_trained"]),
            epochs=epochs,
            image_size=(int(data["image_size"][0]), int(data["image_size"][1])),
            networks=tuple(_network(one, len(epochs)) for one in data["networks"]),
            about={name: value for name, value in data.items() if name not in _OWN},
        )
        said = {name: table.about.get(name, {}) for name in ("data", "recipe")}
        said["recipe.data"] = said["recipe"].get("data", {}) if isinstance(said["recipe"], dict) else {}
        for name, found in said.items():
            if not isinstance(found, dict):
                raise TypeError(f"{name}: found {found!r}; allowed is a mapping")
        if not epochs and any(one.scores for one in table.networks):
            raise ValueError("epochs: found none, but networks have AP")
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
        InvalidArchitecture,
    ) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else error
        raise RunError(f"{path}: is no table: {what}") from error
    if len(table.by_digest) < len(table.networks):
        raise RunError(f"{path}: networks: the same one stands there twice")
    return table


def _network(data: Mapping[str, Json], epochs: int) -> TabularNetwork:
    architecture = Architecture.from_dict(data["architecture"])
    if data["digest"] != architecture.digest:
        raise ValueError(f"networks: the digest {data['digest']} is not that of its architecture")
    scores = {int(seed): tuple(float(one) for one in found) for seed, found in data["AP"].items()}
    for seed, found in scores.items():
        if len(found) != epochs or not all(math.isfinite(one) for one in found):
            raise ValueError(
                f"networks: {architecture.digest}, seed {seed}: found AP {list(found)}; allowed are {epochs} "
                "finite numbers, one an epoch"
            )
    latency = data.get("latency_ms")
    return TabularNetwork(
        architecture=architecture,
        params=int(data["params"]),
        macs=int(data["macs"]),
        scores=scores,
        seconds=float(data.get("seconds", 0.0)),
        latency_ms=None if latency is None else float(latency),
    )


def write_table(table: Table, path: Path) -> None:
    """Write it whole or not at all, a line for every network."""
    data = table.to_dict()
    networks = ",\n".join(json.dumps(one) for one in data.pop("networks"))
    head = json.dumps(data, indent=1)
    write_atomic(path, f'{head[:-2]},\n "networks": [\n{networks}\n ]\n}}\n'.encode())


class TabularProxy:
    """Looks the score up: AP in percent of a training that was done long ago.

    Args:
        table: where it is found.
        epoch: place in the table's epochs; an early one is a short training.
        seeds: over which AP is averaged; all that every network has when left out.
    """

    def __init__(self, table: Table, *, epoch: int = -1, seeds: Sequence[int] | None = None) -> None:
        self.table = table
        self.epoch = epoch
        self.seeds = table.seeds if seeds is None else tuple(seeds)

    def __call__(self, candidate: Candidate) -> Score:
        """See :class:`nas.proxies.base.Proxy`.

        Raises:
            CandidateFailed: a prefix, or a network that is not in the table.
        """
        found = self.table.by_digest.get(candidate.digest) if isinstance(candidate, Architecture) else None
        value = None if found is None else found.score(self.seeds, self.epoch)
        if value is None:
            raise CandidateFailed(f"table {self.table.name} has no score of {candidate.digest}")
        images = self.table.images_trained * self.table.epochs[self.epoch] * len(self.seeds)
        return Score(value=value, attributes={"images_in_table": images})
