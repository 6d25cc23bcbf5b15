"""What a worker needs of a run: its recipe, own files and weights, and the images.

On another machine all of it travels as one object, once a node. Where a node sees the run's directory itself, workers
use that, so that a short training that waits at a rung can go on anywhere; elsewhere they unpack what came.
"""

import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import torch

from nas.methods.catalog import procedure
from nas.methods.data import SearchData, read_data
from nas.proxies.base import Proxy, StagedProxy
from nas.run import Run
from nas.saying import tell
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import DataError
from search_spaces.files import write_atomic
from search_spaces.targets import FOLDER
from trainers.data.detection_set import DetectionSet
from trainers.process import prepare_process

MARK = ".driver"
"""Holds the shipment's name, in the run's directory: who reads it there sees the directory."""


@dataclass(frozen=True, kw_only=True)
class PackedSet:
    """A split whose pixels are an array, which the workers of a node share without copying it.

    Args:
        rest: the split without its images.
        images: uint8 (N, 3, H, W).
    """

    rest: DetectionSet
    images: "np.ndarray[Any, np.dtype[np.uint8]]"

    @classmethod
    def of(cls, data: DetectionSet) -> "PackedSet":
        """Pack a split."""
        return cls(rest=replace(data, images=data.images[:0].clone()), images=data.images[:].numpy())

    def unpacked(self) -> DetectionSet:
        """The split, on the array's own memory, which is for reading only."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return replace(self.rest, images=torch.from_numpy(self.images))


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """A phase of a run, as a worker needs it.

    Args:
        name: of this shipment; no other has it.
        directory: of the run, on the driver's machine.
        phase: its name.
        files: path in the directory -> content.
        data: the two parts of the training split; None where every node reads them itself.
    """

    name: str
    directory: Path
    phase: str
    files: Mapping[str, bytes]
    data: tuple[PackedSet, PackedSet] | None


def pack(run: Run, phase: str, data: SearchData) -> Shipment:
    """Get a phase ready to travel, once all that is trained before its first candidate is trained."""
    wanted = [run.directory / "recipe.yaml", *procedure(run.recipe).worker_files(run, phase)]
    wanted += [path for path in sorted(run.home.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    name = uuid4().hex
    write_atomic(run.directory / MARK, name.encode())
    return Shipment(
        name=name,
        directory=run.directory.resolve(),
        phase=phase,
        files={str(path.relative_to(run.directory)): path.read_bytes() for path in wanted},
        data=None
        if run.recipe.ray.data_on_nodes
        else (PackedSet.of(data.train_set), PackedSet.of(data.held_out)),
    )


def open_shipped(shipment: Shipment) -> Proxy:
    """The proxy of a phase in a worker on any node.

    Raises:
        DataError: the node does not have the images that it should; names node and path.
    """
    directory = place_of(shipment)
    run = Run.open(directory)
    prepare_process(run.recipe.threads)
    if shipment.data is None:
        try:
            data = read_data(run.recipe, tell)
        except DataError as error:
            raise DataError(
                f"node {socket.gethostname()}: {error}. Copy the images there, or set ray.data_on_nodes=false, so that "
                "they travel from the driver"
            ) from error
    else:
        train_set, held_out = (one.unpacked() for one in shipment.data)
        data = SearchData(train_set=train_set, held_out=held_out)
    proxy = cast(Proxy, procedure(run.recipe).scorer(run, data, shipment.phase))
    if directory == shipment.directory:
        return proxy
    return MovedStaged(proxy, run.home) if isinstance(proxy, StagedProxy) else Moved(proxy, run.home)


def open_scorer(directory: Path, phase: str) -> Proxy:
    """The proxy of a phase in a worker process of this machine, which reads everything in the run's directory."""
    run = Run.open(directory)
    prepare_process(run.recipe.threads)
    return cast(Proxy, procedure(run.recipe).scorer(run, read_data(run.recipe, tell), phase))


def place_of(shipment: Shipment) -> Path:
    """The run's directory where this node sees it, or else a copy of what a worker needs of it."""
    try:
        if (shipment.directory / MARK).read_text() == shipment.name:
            return shipment.directory
    except OSError:
        pass
    place = Path(tempfile.gettempdir()) / f"vertebra-{os.getuid()}-{shipment.name}"
    if not place.exists():
        unpacked = Path(tempfile.mkdtemp(dir=place.parent))
        for name, content in shipment.files.items():
            (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / name).write_bytes(content)
        try:
            unpacked.rename(place)
        except OSError:
            # Another worker of this node was first.
            shutil.rmtree(unpacked)
    return place


class Moved:
    """A proxy whose candidates come from a run in another place.

    Args:
        proxy: scores.
        home: the folder of a person's own files here.
    """

    def __init__(self, proxy: Proxy, home: Path) -> None:
        assert home.name == FOLDER, "the copies of own files lie in one folder of a run"
        self._proxy, self._home = proxy, home

    def _here(self, candidate: Candidate) -> Candidate:
        return candidate.at(self._home) if isinstance(candidate, Architecture) else candidate

    def __call__(self, candidate: Candidate) -> Score:
        """As the proxy."""
        return self._proxy(self._here(candidate))


class MovedStaged(Moved):
    """The same for a proxy that scores in stages."""

    _proxy: StagedProxy

    def at(self, candidate: Candidate, step: int) -> Score:
        """As the proxy."""
        return self._proxy.at(self._here(candidate), step)

    def drop(self, candidate: Candidate) -> None:
        """As the proxy."""
        self._proxy.drop(self._here(candidate))
