"""One export at work: what several formats share, and what it has to show in the end."""

from collections.abc import Callable, Sequence
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
        self._wanted: list[list[Detections]] = []

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
        self, run: Callable[[list[Tensor]], Sequence[Sequence[Tensor]]], *, name: str, of: str, one_size: bool
    ) -> tuple[Check, ...]:
        """Compare what a file gives with what the backbone gives.

        Raises:
            RunError: they differ.
        """
        inputs, levels = self.backbone_inputs(one_size=one_size), tuple(self.subject.levels)
        with torch.no_grad():
            wanted = [self.subject.backbone(one) for one in inputs]
        found = [dict(zip(levels, one, strict=True)) for one in run(inputs)]
        return worst(
            compare_maps(one, other, name=name, of=of) for one, other in zip(wanted, found, strict=True)
        )

    def parts(self, resized: bool = False) -> list[Tensor]:
        """All images, a few at a time; the last part may be smaller, so that a file sees more than one batch size.

        Args:
            resized: some of them at another size too, at the end.
        """
        parts = list(torch.split(self.subject.images, _AT_A_TIME))
        return [*parts, taller_and_wider(parts[0], self.subject.step)] if resized else parts

    def detections(self, resized: bool = False) -> list[Detections]:
        """What the detector in PyTorch finds in :meth:`parts`."""
        one = self.subject
        assert one.detector is not None
        parts = self.parts(resized)
        with torch.no_grad():
            for part in parts[len(self._wanted) :]:
                self._wanted.append(one.detector.detections(part))
        return [found for part in self._wanted[: len(parts)] for found in part]

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
