"""Everything a report says, as plain data: read from a run, kept as ``report.json``, drawn as a page.

Scores are COCO fractions in [0, 1]; the page shows them in points (times 100). What a run has not produced
yet is ``None`` or empty, and the page then names the command that produces it. Nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from nas.report.rank_report import RankReport
from nas.report.verdict import Verdict, judge
from search_spaces.architecture import Architecture
from search_spaces.errors import RunError


def _read_architecture(value: object) -> Architecture:
    if isinstance(value, Architecture):
        return value
    if isinstance(value, Mapping):
        return Architecture.from_dict(value)
    raise ValueError(f"an architecture is a mapping; found {type(value).__name__}")


ArchitectureField = Annotated[
    Architecture,
    PlainValidator(_read_architecture),
    PlainSerializer(lambda architecture: architecture.to_dict()),
]


class _Part:
    """Base of all parts: a key nobody reads would be a number that silently left the page."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Metrics(_Part):
    """COCO metrics as fractions; ``None`` where the images hold no object of that size."""

    AP: float
    AP50: float | None = None
    AP75: float | None = None
    APs: float | None = None
    APm: float | None = None
    APl: float | None = None

    @classmethod
    def from_coco(cls, values: Mapping[str, Any]) -> "Metrics":
        """Read pycocotools' numbers, where -1 stands for "no such object"; other keys are left out."""

        def read(name: str) -> float | None:
            value = values.get(name)
            return None if value is None or float(value) < 0 else float(value)

        return cls(
            AP=read("AP") or 0.0,
            AP50=read("AP50"),
            AP75=read("AP75"),
            APs=read("APs"),
            APm=read("APm"),
            APl=read("APl"),
        )


@dataclass(frozen=True, kw_only=True)
class CurvePoint(_Part):
    """AP (fraction) on the validation images after ``epoch`` epochs of a retraining."""

    epoch: float
    AP: float


@dataclass(frozen=True, kw_only=True)
class SeedResult(_Part):
    """One network trained to completion once, under one seed."""

    seed: int
    metrics: Metrics
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Latency(_Part):
    """Milliseconds of one forward pass: median and quartiles of the repeats."""

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    batch_size: int
    input_size: tuple[int, int]
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Memory(_Part):
    """Bytes of one forward pass without gradients; ``how`` says how they were measured."""

    parameter_bytes: int
    activation_bytes: int
    peak_bytes: int
    batch_size: int
    input_size: tuple[int, int]
    device: str
    how: str


@dataclass(frozen=True, kw_only=True)
class LevelFacts(_Part):
    """One level of the backbone's output: name (``"c3"``), channels, stride in pixels."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Contender(_Part):
    """One row of the table: a network, what it costs and how it did under every seed.

    Args:
        name: what the row is called (``"winner"``, ``"ResNet-18"``, ``"best of 40 at random"``).
        architecture: the network.
        params: learned numbers of the backbone.
        macs: multiply-adds of the backbone's convolutions and linear layers at ``input_size`` (h, w).
        detector_params: learned numbers of the whole detector.
        detector_macs: multiply-adds of the whole detector for one image.
        levels: what the backbone hands to the pyramid, shallow to deep.
        score: the proxy's score in the search, fraction; ``None`` for a network the search never scored.
        results: one entry a seed, all trained under the same recipe.
        init: what its trainings began with; ``scratch`` are fresh weights.
    """

    name: str
    architecture: ArchitectureField
    params: int
    macs: int
    input_size: tuple[int, int]
    detector_params: int | None = None
    detector_macs: int | None = None
    levels: tuple[LevelFacts, ...] = ()
    score: float | None = None
    results: tuple[SeedResult, ...] = ()
    init: str = "scratch"
    latency: Latency | None = None
    memory: Memory | None = None

    @property
    def ap_by_seed(self) -> dict[int, float]:
        """AP (fraction) under every seed it was trained with."""
        return {result.seed: result.metrics.AP for result in self.results}


@dataclass(frozen=True, kw_only=True)
class Trial(_Part):
    """One candidate of the search, in the order in which the study took it.

    ``params`` and ``macs`` are ``None`` for a prefix, whose network is not decided yet. ``text`` is the short
    form a person reads (``"1,1,2,4"``). ``stopped_at`` is the rung (training steps, or images of a race) that stopped
    the candidate, ``None`` for one that a limit rejected before anything ran. ``latency`` is in the baseline's, the two
    timed in turn; ``latency_ms`` holds low quartile, median and high quartile of the candidate. ``naswot`` and
    ``mean_rank`` are there in a phase that is decided by the mean of the ranks by score and by NASWOT.
    """

    number: int
    phase: str
    digest: str
    text: str
    state: Literal["complete", "running", "failed", "pruned"]
    value: float | None = None
    params: int | None = None
    macs: int | None = None
    prefix: bool = False
    reason: str | None = None
    stopped_at: int | None = None
    latency: float | None = None
    latency_ms: tuple[float, float, float] | None = None
    naswot: float | None = None
    mean_rank: float | None = None


@dataclass(frozen=True, kw_only=True)
class ErfLevel(_Part):
    """The effective receptive field of one pyramid level (Luo et al. 2016), in input pixels.

    Args:
        std_px: standard deviation of the gradient map about its centroid.
        area_px: square root of the number of pixels above 4.55 % of the maximum.
        box_px: height and width of the box of non-zero gradient.
        trf_px: theoretical receptive field; equal to the box unless the canvas cuts it.
        anchor_px: side of the anchor of this level, or of the largest object it answers for, ``None`` where it
            has none.
        png: the map, base64 of a PNG of the whole canvas (see ``nas.report.pictures.erf_png``).
    """

    level: str
    std_px: float
    area_px: float
    box_px: tuple[int, int]
    trf_px: int
    anchor_px: float | None
    png: str

    def sizes(self) -> dict[str, Any]:
        """Everything but the picture."""
        return {
            "std": self.std_px,
            "area": self.area_px,
            "box": list(self.box_px),
            "trf": self.trf_px,
            "anchor": self.anchor_px,
        }


@dataclass(frozen=True, kw_only=True)
class ErfReport(_Part):
    """ERF maps of baseline and winner on the same canvas; ``how`` says weights and input."""

    canvas_px: int
    images: int
    how: str
    baseline: tuple[ErfLevel, ...]
    winner: tuple[ErfLevel, ...]


@dataclass(frozen=True, kw_only=True)
class Box(_Part):
    """A box in pixels of the picture it lies on; ``score`` is ``None`` for an annotation."""

    x: float
    y: float
    width: float
    height: float
    label: str
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionSample(_Part):
    """One validation image with its annotations and what each network found."""

    image_id: int
    file_name: str
    width: int
    height: int
    jpeg: str
    truth: tuple[Box, ...]
    winner: tuple[Box, ...]
    baseline: tuple[Box, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RankEntry(_Part):
    """One allocation trained alone for a short time, beside what the supernet said of it (fractions)."""

    text: str
    digest: str
    supernet: float
    alone: float
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class RankCheck(_Part):
    """Allocations trained alone against the supernet's scores; ``how`` says length and seeds."""

    how: str
    entries: tuple[RankEntry, ...]


@dataclass(frozen=True, kw_only=True)
class PhaseCost(_Part):
    """What one phase spent; ``macs`` are the backbone's, a training image counted as three forward passes.

    ``steps`` are optimiser steps, where candidates are trained one by one.
    """

    name: str
    seconds: float
    images: int
    macs: int
    trials: int | None = None
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Split(_Part):
    """One split of the data: what it was used for, images, objects."""

    name: str
    use: str
    images: int
    objects: int


@dataclass(frozen=True, kw_only=True)
class DataFacts(_Part):
    """The data behind every number. ``skipped`` names files and ids that ``data.on_bad=skip`` dropped."""

    name: str
    digest: str
    image_size: str
    categories: tuple[str, ...]
    splits: tuple[Split, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reproduction(_Part):
    """What a stranger needs to repeat the run."""

    commands: tuple[str, ...]
    versions: Mapping[str, str]
    hardware: str
    threads: int
    seeds: Mapping[str, str]
    recipe: str | None = None
    recipe_digest: str | None = None
    recipes_tried: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportData(_Part):
    """All that one report says.

    Args:
        title: what was searched, one line (``"CR-NAS on digits"``).
        run: the run directory as the person typed it; it appears in the commands the page offers.
        created: date and time, ISO 8601.
        state: ``"complete"`` or what is still missing (``"stages: 17 of 31"``).
        winner: ``None`` while the search runs.
        random: the best of a random search that spent as many evaluations.
        hand_made: further networks, with pyramids and heads of their own.
        ablations: networks that differ from the baseline in one respect, by what was done to them.
        cost_objective: ``"macs"``, ``"params"`` or ``"latency"`` where the search had a cost beside AP; its front
            is drawn then.
        allocation_chosen_by: in CR-NAS, by what the winner of the first step is chosen, as a person reads it.
        front: numbers of the trials of phase ``"search"`` that no other dominates, cheapest first.
        truth: the proxy against a table of networks trained alone, phase by phase, where one was given.
        notes: sentences to be read beside the verdict (a changed thread count, a recipe tried before).
    """

    title: str
    run: str
    created: str
    state: str
    baseline: Contender
    winner: Contender | None = None
    random: Contender | None = None
    hand_made: tuple[Contender, ...] = ()
    ablations: Mapping[str, Contender] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    cost_objective: str | None = None
    allocation_chosen_by: str | None = None
    front: tuple[int, ...] = ()
    erf: ErfReport | None = None
    detections: tuple[DetectionSample, ...] = ()
    ranks: RankCheck | None = None
    truth: tuple[RankReport, ...] = ()
    cost: tuple[PhaseCost, ...] = ()
    data: DataFacts | None = None
    reproduction: Reproduction | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def verdict(self) -> Verdict:
        """Whether the winner is worth having; see :func:`nas.report.verdict.judge`."""
        winner = self.winner
        return judge(
            winner=None if winner is None else winner.ap_by_seed,
            baseline=self.baseline.ap_by_seed,
            same=winner is not None and winner.architecture.digest == self.baseline.architecture.digest,
            state=self.state,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; :meth:`from_dict` is its inverse."""
        return _adapter().dump_python(self, mode="json")  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ReportData":
        """Read what :meth:`to_dict` wrote.

        Raises:
            RunError: a key is missing, unknown or of the wrong kind; every such place is named.
        """
        try:
            return _adapter().validate_python(dict(data))
        except ValidationError as error:
            places = "\n".join(
                f"  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors()[:10]
            )
            raise RunError(
                f"report.json cannot be read; write it again with `nas report RUN`:\n{places}"
            ) from None


def _adapter() -> TypeAdapter[ReportData]:
    return TypeAdapter(ReportData)
