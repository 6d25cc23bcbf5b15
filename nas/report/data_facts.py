"""What ``nas data check`` says of a folder, as plain data. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nas.report.data import Box

RULE = (
    "A level is short of field when half or more of the objects that it answers for are longer than the side of what "
    "it sees. In theory that is the receptive field of the backbone's level (shortcuts add nothing); in effect it is "
    "less, the centre counts most (Luo et al. 2016), and where it was measured it is the root of the area of the "
    "gradient at random weights. Objects of all sizes need a field that fits them, which is why blocks are reallocated "
    "(Liang et al. 2020, CR-NAS, section 1). Left out, in favour of the level: what the pyramid's path from coarse to "
    "fine and the head add, and that training widens the effective field."
)
"""When a level is short of field, and why it matters."""


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """One split in numbers; objects without crowds.

    Args:
        name: of its annotation file.
        images: that could be decoded.
        empty: of these, without an object.
        objects: boxes to learn from.
        crowds: crowd regions.
        by_size: COCO's small, medium and large, by area in original px.
        by_class: name -> objects.
    """

    name: str
    images: int
    empty: int
    objects: int
    crowds: int
    by_size: Mapping[str, int]
    by_class: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class LevelFacts:
    """What one level of the pyramid looks for, what it sees, and the objects that it answers for.

    All lengths are px of the resized images; an object's is its longer side.

    Args:
        level: its name.
        stride: px of the image per cell.
        looks_for: ``DetectorRecipe.object_side``.
        theoretical: side of its theoretical receptive field.
        effective: root of the area of its effective field; None where it was not measured.
        objects: that it answers for.
        low: 10th percentile of their lengths; None without objects, like the next two.
        median: of their lengths.
        high: 90th percentile.
        beyond: share of them longer than the theoretical field.
    """

    level: str
    stride: int
    looks_for: float
    theoretical: int
    effective: float | None
    objects: int
    low: float | None
    median: float | None
    high: float | None
    beyond: float

    @property
    def verdict(self) -> str:
        """``"no objects"``, ``"short"``, ``"short in effect"`` or ``"enough"``."""
        if self.median is None:
            return "no objects"
        if self.theoretical < self.median:
            return "short"
        if self.effective is not None and self.effective < self.median:
            return "short in effect"
        return "enough"

    @property
    def sentence(self) -> str:
        """What there is to say about it."""
        name = f"{self.level} (stride {self.stride})"
        if self.median is None or self.low is None or self.high is None:
            return (
                f"{name} answers for no object, so it learns from nothing of its own; detector.anchor_scale moves what "
                "levels answer for, detector.levels leaves one out"
            )
        sees = f"sees {self.theoretical} px in theory"
        if self.effective is not None:
            sees += f" and {self.effective:.0f} px in effect"
        what = (
            f"four in five of its objects ({self.objects}) are {self.low:.0f} to {self.high:.0f} px long, median "
            f"{self.median:.0f} px"
        )
        if self.verdict == "enough":
            beyond = (
                f"; {100 * self.beyond:.0f} % outgrow the field in theory" if self.beyond >= 0.005 else ""
            )
            return f"{name} has field enough: it {sees}, {what}{beyond}"
        how = "short of field in effect" if self.verdict == "short in effect" else "short of field"
        return f"{name} is {how}: it {sees}, but {what}"


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """What the levels of one detector make of the objects.

    Args:
        detector: its name.
        backbone: as a person named it.
        levels: fine to coarse.
        assigned_by: how an object was given to levels, one sentence.
        seen: objects that were looked at; fewer than there are in a large set.
        unassigned: of these, such that no level answers for.
    """

    detector: str
    backbone: str
    levels: tuple[LevelFacts, ...]
    assigned_by: str
    seen: int
    unassigned: int

    def told(self, objects: int) -> str:
        """How the levels came by their objects.

        Args:
            objects: of the whole set.
        """
        said = f"Objects belong to levels {self.assigned_by}."
        if self.seen < objects:
            said += f" Of {objects:,} objects {self.seen:,} were drawn by chance."
        if self.unassigned:
            said += f" For {self.unassigned:,} of them no level answers."
        return said


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with its annotations, scaled for the page."""

    split: str
    file_name: str
    width: int
    height: int
    jpeg: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """All of a check.

    Args:
        root: of the folder.
        splits: train first.
        problems: see :class:`~trainers.data.checking.FolderCheck`.
        warnings: the same.
        resized: how images were resized for ``lengths``.
        lengths: longer side of every object of every split in resized px, rising.
        pyramid: None where no detector was named.
        pyramid_fault: why a named detector could not be looked at.
        pictures: some images, chosen by the seed.
        seed: of that choice.
    """

    root: str
    splits: tuple[SplitCounts, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    resized: str
    lengths: tuple[float, ...] = ()
    pyramid: Pyramid | None = None
    pyramid_fault: str | None = None
    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; without pictures, and lengths as percentiles."""
        found = asdict(self)
        del found["pictures"], found["lengths"]
        found["length_percentiles"] = {
            str(share): percentile(self.lengths, share / 100)
            for share in (0, 10, 25, 50, 75, 90, 100)
            if self.lengths
        }
        if self.pyramid is not None:
            found["pyramid"]["levels"] = [
                {**asdict(level), "verdict": level.verdict, "sentence": level.sentence}
                for level in self.pyramid.levels
            ]
            found["pyramid"]["rule"] = RULE
        return found


def percentile(rising: tuple[float, ...] | list[float], share: float) -> float:
    """A value of the list such that about this share of it lies below."""
    return rising[min(int(share * len(rising)), len(rising) - 1)]
