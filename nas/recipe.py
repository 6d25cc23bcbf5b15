"""What a search recipe may say. Plain dataclasses; ``nas.config`` checks them at the door."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.recipe import FieldError, Recipe
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe, require_masks

NetworkName = Literal["resnet18", "resnet50", "resnet101", "resnext50", "resnext101", "mobilenetv2"]
Option = int | float | str | bool | None


def one_of(recipe: Recipe, *names: str) -> None:
    """Raise unless exactly one of these fields is given.

    Raises:
        FieldError: none, or more than one.
    """
    found = [name for name in names if getattr(recipe, name) is not None]
    if len(found) != 1:
        field = (found or names)[-1]
        remedy = f"give exactly one of {', '.join(names)}"
        raise FieldError(field, getattr(recipe, field), f"{remedy}")


@dataclass(frozen=True, kw_only=True)
class SpaceRecipe(Recipe):
    """Which CR-NAS space is searched; what is left out is the published one of ``network``.

    Args:
        network: the hand-made network whose blocks are reallocated; it is the baseline too.
        branches: allowed block counts of each stage; the table of the paper when left out.
        budget: number of blocks in all; the baseline's when left out.
        widths: channels of the four stages (before a bottleneck's expansion); ResNets only.
        width_multiplier: of every width; MobileNetV2 only.
        stem: ``imagenet``, ``ceil_pool`` or ``small``; the network's own when left out.
    """

    network: NetworkName = "resnet18"
    branches: tuple[tuple[int, ...], ...] | None = None
    budget: int | None = None
    widths: tuple[int, ...] | None = None
    width_multiplier: float | None = None
    stem: Literal["imagenet", "ceil_pool", "small"] | None = None


@dataclass(frozen=True, kw_only=True)
class SupernetRecipe(Recipe):
    """How a shared-weight supernet is trained and how a candidate is scored with it.

    Args:
        sharing: ``independent`` branches (the paper's figure 2) or ``prefix``: a branch of depth d is the
            first d blocks of one chain. A dilation supernet has one form only and ignores it.
        inherit: a dilation supernet begins with the stage supernet's weights: every dilation of a block with
            those of the winner's block, pyramid and head as they are. The paper does not say how it begins.
        train: its training; every step draws one path uniformly.
        recalibration_batches: training batches that rebuild the BN statistics of a candidate.
        score_batch: images in one mini-batch of scoring; undecided genes are drawn anew for each.
    """

    sharing: Literal["independent", "prefix"] = "independent"
    inherit: bool = False
    train: TrainRecipe = field(default_factory=lambda: TrainRecipe(steps=1000))
    recalibration_batches: int = 50
    score_batch: int = 16

    def __post_init__(self) -> None:
        self.require(
            "recalibration_batches",
            self.recalibration_batches >= 1,
            "at least 1, else BN keeps statistics of other paths",
        )
        self.require("score_batch", self.score_batch >= 1, "at least 1")
        if self.train.compile:
            raise FieldError(
                "train.compile", True, "allowed is false, for every step of a supernet has another path"
            )
        if self.train.drop_path:
            raise FieldError("train.drop_path", self.train.drop_path, "allowed is 0, for supernets have none")


@dataclass(frozen=True, kw_only=True)
class ControllerRecipe(Recipe):
    """Who proposes candidates; exactly one of ``name`` and ``target`` is given.

    Args:
        name: a name of ``nas.controllers.catalog``, for example ``exhaustive``, ``greedy``, ``random``,
            ``aging_evolution``, ``detnas_evolution``, ``local_search``, ``policy_gradient``, or an Optuna sampler
            (``tpe``, ``nsga2``, ...).
        target: your own controller, ``my_file.py:MyController``, the file relative to the recipe.
        budget: evaluations in all; left out where the controller knows its own end.
        options: the controller's own settings, by their argument names; those of an Optuna sampler are
            a mapping under ``options`` again.
    """

    name: str | None = None
    target: str | None = None
    budget: int | None = None
    options: dict[str, Option | dict[str, Option]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "name", "target")


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe(Recipe):
    """One level of the hierarchical search: a supernet and a controller on it."""

    supernet: SupernetRecipe = field(default_factory=SupernetRecipe)
    controller: ControllerRecipe


@dataclass(frozen=True, kw_only=True)
class HandMadeRecipe(Recipe):
    """A hand-made detector in the final table, with a backbone, pyramid and head of its own.

    Args:
        name: of its row; letters, digits, ``_`` and ``-``.
        space: the network and its widths; what says how blocks are searched is left out.
        equal_macs: widths are scaled, all by one factor and to multiples of 4, until the whole detector has the
            multiply-adds of the baseline's.
        detector: around it.
    """

    name: str
    space: SpaceRecipe
    equal_macs: bool = True
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9_-]+", self.name) is not None
        self.require("name", plain, "one or more of letters, digits, _ and -")


@dataclass(frozen=True, kw_only=True)
class RetrainRecipe(Recipe):
    """Winner, baseline and rivals trained alone, equally long, and evaluated on the folder's ``val``.

    Args:
        train: the training, the same for every network.
        seeds: trainings of the winner and of the baseline.
        first_seed: the seeds of this table are ``first_seed`` and those after it; used for nothing else.
        rivals: ``random``: the best of random search at the search's expense, under the same proxy (in CR-NAS
            dilation lists of the winner's allocation); ``stages``, of CR-NAS: the stage winner without dilations.
        rival_seeds: trainings of each rival.
        hand_made: further detectors to compare with, under the same seeds as winner and baseline.
        tried_before: every recipe tried on these images before, a line each; the report and the results show
            them, for a table is only worth what was not tried until it came out well.
    """

    train: TrainRecipe
    seeds: int = 3
    first_seed: int = 1000
    rivals: tuple[Literal["stages", "random"], ...] = ()
    rival_seeds: int = 1
    hand_made: tuple[HandMadeRecipe, ...] = ()
    tried_before: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.require("seeds", self.seeds >= 1, "at least 1")
        self.require("rival_seeds", self.rival_seeds >= 1, "at least 1")
        names = [one.name for one in self.hand_made]
        taken = {"winner", "baseline", "random", "stages"}.intersection(names)
        self.require(
            "hand_made",
            len(set(names)) == len(names) and not taken,
            "rivals with names of their own, none of them winner, baseline, random or stages",
        )


@dataclass(frozen=True, kw_only=True)
class SearchRecipe(Recipe):
    """What the recipe of every method says: data, detector, the final table.

    Args:
        name: shown in reports.
        method: the procedure, a name of ``nas.methods.catalog``; decides which further keys there are.
        seed: of everything but the final table.
        workers: processes that train networks of the final table side by side.
        threads: torch threads of each worker; part of the run's record, because sums depend on it.
        device: ``auto`` takes a GPU where there is one.
        storage: URL of a database for the trials (``sqlite:///study.db``, ``postgresql://...``); a journal
            in the run directory when left out.
        data: the images.
        detector: built around every backbone.
        retrain: the final table; without it a run ends with the winner.
    """

    name: str
    method: str
    seed: int = 0
    workers: int = 1
    threads: int = 1
    device: str = "auto"
    storage: str | None = None
    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    retrain: RetrainRecipe | None = None

    @property
    def ablated(self) -> tuple[str, ...]:
        """Names of networks that the method puts into the final table beside the rivals."""
        return ()

    def __post_init__(self) -> None:
        self.require("workers", self.workers >= 1, "at least 1")
        self.require("threads", self.threads >= 1, "at least 1")
        require_masks(self.data, self.detector)
        for one in self.retrain.hand_made if self.retrain is not None else ():
            require_masks(self.data, one.detector)
            if one.name in self.ablated:
                raise FieldError("retrain.hand_made", one.name, "allowed is a name that no ablation has")


@dataclass(frozen=True, kw_only=True)
class CRNASRecipe(SearchRecipe):
    """Liang et al. 2020: blocks are shared out over the stages, then every block gets its dilation.

    Args:
        space: which blocks there are to share out.
        stages: supernet and controller of the first step.
        dilations: of the second; without it the winner of the first is the winner.
    """

    method: Literal["crnas"] = "crnas"
    space: SpaceRecipe = field(default_factory=SpaceRecipe)
    stages: PhaseRecipe
    dilations: PhaseRecipe | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages.supernet.inherit:
            raise FieldError(
                "stages.supernet.inherit",
                True,
                "allowed is false, for there is no supernet before that of the stages",
            )
        if self.retrain is not None and "random" in self.retrain.rivals and self.dilations is None:
            raise FieldError(
                "retrain.rivals",
                list(self.retrain.rivals),
                "'random' draws dilations; add a dilations section or leave it out",
            )


@dataclass(frozen=True, kw_only=True)
class SpineNetSpaceRecipe(Recipe):
    """Which scale-permuted networks are searched.

    Args:
        baseline: a published network of the family; gives the stem, what is not free, and the comparison.
        filter_size_scale: times the published widths; the baseline's own when left out, as all further ones.
        alpha: width inside resamplings.
        repeats: copies of every block.
        endpoint: channels of P3 to P7.
        activation: ``relu`` or ``swish``.
        free: the decisions that are searched; R[N]-SP[M] searches free permutation and connections.
        window: an intermediate block reads among so many blocks before it; null: any.
        dead: what becomes of a block that nothing reads: ``connect`` it, ``allow`` it, or ``limit``, which
            rejects the candidate before anything is spent.
    """

    baseline: str = "r0_sp53"
    filter_size_scale: float | None = None
    alpha: float | None = None
    repeats: int | None = None
    endpoint: int | None = None
    activation: Literal["relu", "swish"] | None = None
    free: tuple[Literal["permutation", "connections", "levels", "types"], ...] = (
        "permutation",
        "connections",
        "levels",
        "types",
    )
    window: int | None = 5
    dead: Literal["connect", "allow", "limit"] = "connect"


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
            for its limit). The report then draws the Pareto front; the controllers ``nsga2`` and ``nsga3`` search for
            it, all others for AP alone. The winner is the highest AP at no more than the baseline's cost, or, where
            there is none, of all.
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


@dataclass(frozen=True, kw_only=True)
class AblationsRecipe(Recipe):
    """Which ablations of the paper (Du et al. 2020, section 5.5) stand beside the winner in the final table.

    Args:
        damages: the baseline with wires taken away: every block keeps only its farther parent, only its nearer one,
            or only the block before it.
        orders: fixed orders of scales whose connections are searched, under the proxy and the limits of the search.
        controller: of these searches.
    """

    damages: tuple[Literal["drop_short_range", "drop_long_range", "chain"], ...] = ()
    orders: tuple[Literal["hourglass", "fish"], ...] = ()
    controller: ControllerRecipe | None = None

    def __post_init__(self) -> None:
        self.require(
            "controller",
            (self.controller is None) == (not self.orders),
            "a controller where there are orders, whose connections it searches, and null where there are none",
        )


@dataclass(frozen=True, kw_only=True)
class SpineNetRecipe(SearchRecipe):
    """Du et al. 2020: scales are permuted and wired across, every candidate is trained for a short time.

    Args:
        space: which networks.
        search: proxy, controller, limits.
        ablations: further networks of the final table, trained ``retrain.rival_seeds`` times.
    """

    method: Literal["spinenet"] = "spinenet"
    space: SpineNetSpaceRecipe = field(default_factory=SpineNetSpaceRecipe)
    search: ProxySearchRecipe
    ablations: AblationsRecipe | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_stages(self)
        if self.ablations is not None and self.retrain is None:
            raise FieldError(
                "ablations", self.ablated, "they belong to the final table; add a retrain section"
            )

    @property
    def ablated(self) -> tuple[str, ...]:
        """Names of the ablations' networks."""
        return () if self.ablations is None else (*self.ablations.damages, *self.ablations.orders)


def refuse_stages(recipe: SearchRecipe) -> None:
    """Raise where the rival ``stages`` is asked of a method that has no such step.

    Raises:
        FieldError: it is.
    """
    if recipe.retrain is not None and "stages" in recipe.retrain.rivals:
        raise FieldError(
            "retrain.rivals",
            list(recipe.retrain.rivals),
            "allowed is 'random'; 'stages' is a step of CR-NAS",
        )


@dataclass(frozen=True, kw_only=True)
class AnySpaceRecipe(Recipe):
    """Any space; exactly one of ``name`` and ``target`` is given.

    Args:
        name: a name of ``search_spaces.catalog.SPACES``, as ``nas spaces`` lists them.
        target: your own, ``my_file.py:MySpace``, the file relative to the recipe.
        options: of your own, by the argument names of its constructor.
    """

    name: str | None = None
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "name", "target")
        self.require("options", self.target is not None or not self.options, "{} without a target")


@dataclass(frozen=True, kw_only=True)
class AnyProxyRecipe(Recipe):
    """What a score is; exactly one of ``train`` and ``target`` is given.

    Args:
        train: every candidate is trained alone for so long, and scored on the held-out images.
        recalibration_batches: with ``train``: see :class:`ShortTrainingRecipe`.
        target: your own proxy, ``my_file.py:MyProxy``, the file relative to the recipe.
        options: of your own, by the argument names of its constructor.
    """

    train: TrainRecipe | None = None
    recalibration_batches: int = 8
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "train", "target")
        self.require("options", self.target is not None or not self.options, "{} without a target")
        self.require("recalibration_batches", self.recalibration_batches >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class AnySearchRecipe(OneSearchRecipe):
    """One search with short trainings or a proxy of your own.

    Args:
        proxy: how a candidate is scored.
    """

    proxy: AnyProxyRecipe

    def __post_init__(self) -> None:
        super().__post_init__()
        trained = self.proxy.train is not None
        self.require(
            "rungs", trained or self.rungs is None, "null with a proxy of your own, which has no steps"
        )


@dataclass(frozen=True, kw_only=True)
class OnePhaseRecipe(SearchRecipe):
    """No paper's: one phase with any space, any controller and any proxy, each of the house or your own.

    Args:
        space: which networks.
        search: proxy, controller, limits.
    """

    method: Literal["search"] = "search"
    space: AnySpaceRecipe
    search: AnySearchRecipe

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_stages(self)


@dataclass(frozen=True, kw_only=True)
class TrainJobRecipe(Recipe):
    """What ``nas train BUNDLE RECIPE`` reads: one training of one backbone to completion.

    Args:
        name: shown in results.
        seed: of initial weights, order and augmentation.
        threads: torch threads; part of the record, because sums depend on it.
        device: ``auto`` takes a GPU where there is one.
        data: the images.
        detector: built around the backbone.
        init: ``scratch``, as the paper's table compares networks, or ``bundle``: the backbone begins with the
            bundle's weights, for other images or another detector.
        activation: trains the network with this activation in place of its own (SpineNet's protocol C retrains
            with swish what was found with ReLU); a network whose family has no such setting is refused.
        train: length, optimiser, schedule.
    """

    name: str
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    init: Literal["scratch", "bundle"] = "scratch"
    activation: Literal["relu", "swish", "hswish"] | None = None
    train: TrainRecipe

    def __post_init__(self) -> None:
        require_masks(self.data, self.detector)
