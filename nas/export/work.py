"""One export at work: what several formats share, and what it has to show in the end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.export.capture import Captured, capture_backbone
from nas.export.parity import Artefact, Check, compare_maps, taller_and_wider, worst
from nas.export.subject import Subject
from trainers.detectors.detector import Detections
from trainers.learner import normalised

NORMALISED = "RGB from 0 to 1, less mean, over standard deviation"
_AT_A_TIME = 7


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written.

    Attributes:
        artefacts: files that were compared and found equal.
        left_out: what could not be exported and why, one sentence each.
    """

    artefacts: tuple[Artefact, ...]
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What ``export.json`` says."""
        return {
            "artefacts": [one.to_dict() for one in self.artefacts],
            "left_out": list(self.left_out),
        }


class Work:
    """One export: what several formats share is computed once.

    Args:
        subject: the network.
        folder: of the export; holds ``backbone.py`` already.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.artefacts: list[Artefact] = []
        self.left_out: list[str] = []
        self._captured: Captured | None = None
        self._wanted: dict[int, list[Detections]] = {}

    @property
    def captured(self) -> Captured:
        """The backbone as a graph."""
        if self._captured is None:
            one = self.subject
            self._captured = capture_backbone(one.backbone, one.levels, one.image_size)
        return self._captured

    def backbone_inputs(self, *, one_size: bool) -> list[Tensor]:
        """Normalised images: a few, the first one alone, and the few at another size where that may be."""
        images = normalised(self.subject.few)
        inputs = [images, images[:1]]
        return inputs if one_size else [*inputs, taller_and_wider(images, self.subject.step)]

    def compare_backbone(
        self, run: Callable[[Tensor], Sequence[Tensor]], *, name: str, of: str, one_size: bool
    ) -> tuple[Check, ...]:
        """Compare what a file gives with what the backbone gives.

        Args:
            run: gives a file's maps of normalised images, fine to coarse.
            name: of the format.
            of: file that is run.
            one_size: no other size than that of the images may be put in.

        Raises:
            RunError: they differ.
        """

        def compared() -> Iterator[tuple[Check, ...]]:
            for images in self.backbone_inputs(one_size=one_size):
                with torch.no_grad():
                    wanted = self.subject.backbone(images)
                found = dict(zip(self.subject.levels, run(images), strict=True))
                yield compare_maps(wanted, found, name=name, of=of)

        return worst(compared())

    def parts(self, resized: bool) -> Iterator[Tensor]:
        """All images, a few at a time; the last part may be smaller, so that a file sees more than one batch size.

        Args:
            resized: some of them at another size too, at the end.
        """
        yield from self.subject.batches(_AT_A_TIME)
        if resized:
            yield taller_and_wider(next(self.subject.batches(_AT_A_TIME)), self.subject.step)

    def detections(self, resized: bool) -> Iterator[tuple[Tensor, list[Detections]]]:
        """Each of :meth:`parts` with what the detector in PyTorch finds in it."""
        detector = self.subject.detector
        assert detector is not None
        for number, part in enumerate(self.parts(resized)):
            found = self._wanted.get(number)
            if found is None:
                with torch.no_grad():
                    found = detector.detections(part)
                # Masks of a whole split need gigabytes, and who finds them leaves in one format alone.
                if not any("masks" in one for one in found):
                    self._wanted[number] = found
            yield part, found

    def add(self, path: Path, *, name: str, holds: str, accepts: str, checks: tuple[Check, ...]) -> None:
        """Note a file that was found equal."""
        self.artefacts.append(
            Artefact(
                format=name,
                file=str(path.relative_to(self.folder)),
                holds=holds,
                bytes=path.stat().st_size,
                accepts=accepts,
                checks=checks,
                on="" if not checks else self.subject.on if holds == "detector" else self.subject.on_few,
            )
        )
