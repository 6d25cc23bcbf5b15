"""One search over whole candidates: limits, rungs, short trainings."""

from dataclasses import dataclass, field
from typing import Literal

from nas.recipes.controller import ControllerRecipe, Option
from search_spaces.recipe import FieldError, Recipe
from trainers.recipes import TrainRecipe, refuse_auto


@dataclass(frozen=True, kw_only=True)
class ShortTrainingRecipe(Recipe):
    """How a candidate is trained alone for a short time.

    Args:
        train: length, optimiser, schedule.
        width: of the network that is trained, in that of the candidate; the paper's is a quarter.
        alpha: width inside its resamplings; the candidate's when left out.
        recalibration_batches: training batches from which the statistics of BN are computed anew for scoring. The
            paper does not say whether it does; SpineNet's running means have decay 0.99, so after a hundred steps
            they still remember their initial values. 0: they are taken as they are.
    """

    train: TrainRecipe = field(default_factory=lambda: TrainRecipe(steps=300))
    width: float = 1.0
    alpha: float | None = None
    recalibration_batches: int = 8

    def __post_init__(self) -> None:
        refuse_auto(self.train)
        self.require("width", self.width > 0, "above 0")
        self.require("alpha", self.alpha is None or self.alpha > 0, "above 0")
        self.require("recalibration_batches", self.recalibration_batches >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class LimitsRecipe(Recipe):
    """What a candidate may cost at most, in the baseline's cost; checked before anything is trained.

    Args:
        params: times the baseline's parameters.
        macs: times the baseline's multiply-adds at the size of the images.
        latency: times the baseline's latency on this device: medians of forward passes of one image by the run's
            threads, both networks timed in turn. Measured last, once a network, and kept with the trial.
    """

    params: float | None = None
    macs: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        for name in ("params", "macs", "latency"):
            value = getattr(self, name)
            self.require(name, value is None or value > 0, "above 0, in multiples of the baseline's")


@dataclass(frozen=True, kw_only=True)
class RungsRecipe(Recipe):
    """Steps of a short training at which a candidate is scored, and stopped when it does poorly.

    By default asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2): one in
    ``reduction`` of those that reached a rung goes on, by AP on the held-out images.

    Args:
        first: step of the first rung; the next ones come after ``reduction`` times as many steps, until the end.
        reduction: see ``first``.
        steps: rungs at any rising steps, for a pruner that needs no such row; in place of ``first``.
        pruner: a name of ``nas.pruning``: ``successive_halving``, ``hyperband``, ``median``, ``percentile``,
            ``patient``, ``threshold``, or ``nop``, which stops nobody.
        options: the pruner's own settings, by their argument names.
    """

    first: int | None = None
    reduction: int = 3
    steps: tuple[int, ...] | None = None
    pruner: str = "successive_halving"
    options: dict[str, Option | dict[str, Option]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.first is None) == (self.steps is None):
            raise FieldError("first", self.first, f"give exactly one of first and steps ({self.steps})")
        self.require("first", self.first is None or self.first >= 1, "at least 1")
        self.require("reduction", self.reduction >= 2, "at least 2")
        steps = self.steps if self.steps is not None else (1,)
        rising = list(steps) == sorted(set(steps))
        self.require("steps", bool(steps) and rising and steps[0] >= 1, "one or more rising steps from 1")
        if self.steps is not None and self.pruner in ("hyperband", "successive_halving"):
            raise FieldError(
                "steps", list(self.steps), f"{self.pruner} has its own row; give first and reduction"
            )


@dataclass(frozen=True, kw_only=True)
class OneSearchRecipe(Recipe):
    """One search over whole candidates: a controller, limits, rungs.

    Args:
        controller: who proposes.
        limits: checked before anything is trained.
        rungs: where a poor candidate is stopped; every training runs to its end when left out.
        objectives: ``[AP]``, or AP and one cost of the backbone, ``macs``, ``params`` or ``latency`` (measured as
            for its limit). The report then draws the Pareto front; the controllers ``nsga2``, ``nsga3`` and
            ``predictor_guided`` search for it, all others for AP alone. The winner is the highest AP at no more than
            the baseline's cost, or, where there is none, of all.
    """

    controller: ControllerRecipe
    limits: LimitsRecipe = field(default_factory=LimitsRecipe)
    rungs: RungsRecipe | None = None
    objectives: tuple[Literal["AP", "macs", "params", "latency"], ...] = ("AP",)

    def __post_init__(self) -> None:
        fits = self.objectives[:1] == ("AP",) and len(set(self.objectives)) == len(self.objectives) <= 2
        if not fits:
            raise FieldError(
                "objectives",
                list(self.objectives),
                "allowed is [AP], or AP and then one cost, for example [AP, macs]",
            )

    @property
    def cost(self) -> str | None:
        """The objective beside AP, if there is one."""
        return self.objectives[1] if len(self.objectives) == 2 else None

    @property
    def needs_latency(self) -> bool:
        """Whether candidates are timed."""
        return self.limits.latency is not None or self.cost == "latency"


@dataclass(frozen=True, kw_only=True)
class ProxySearchRecipe(OneSearchRecipe):
    """One search with short trainings.

    Args:
        proxy: how a candidate is scored.
    """

    proxy: ShortTrainingRecipe = field(default_factory=ShortTrainingRecipe)
