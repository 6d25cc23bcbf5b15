"""What the recipe of every method says."""

import re
from dataclasses import dataclass, field
from typing import Literal

from nas.budget import ALLOWED, read_budget
from nas.recipes.crnas_space import SpaceRecipe
from nas.recipes.loggers import LoggerName, require_each_once
from nas.recipes.train_job import require_ranks
from search_spaces.errors import ConfigError
from search_spaces.recipe import FieldError, Recipe
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe, refuse_auto, require_masks


@dataclass(frozen=True, kw_only=True)
class HandMadeRecipe(Recipe):
    """A hand-made detector in the final table, with a backbone, pyramid and head of its own.

    Args:
        name: of its row; letters, digits, ``_`` and ``-``.
        space: the network and its widths; what says how blocks are searched is left out.
        equal_macs: widths are scaled, all by one factor and to multiples of 4, until the whole detector has the
            multiply-adds of the baseline's.
        detector: around it.
        init: ``scratch`` as all the others, or what a pre-trained baseline begins with: ``imagenet``,
            ``imagenet_v2`` or a path, as ``init`` of ``nas train`` takes them; the widths are then left alone
            (``equal_macs: false``). The report says whether the winner, from scratch, is better than that.
    """

    name: str
    space: SpaceRecipe
    equal_macs: bool = True
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    init: str = "scratch"

    def __post_init__(self) -> None:
        self.require("init", self.init not in ("", "bundle"), "scratch, imagenet, imagenet_v2 or a path")
        self.require(
            "equal_macs",
            self.init == "scratch" or not self.equal_macs,
            f"false with init {self.init}, whose weights are of given widths",
        )
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
        ranks: processes that carry out each training together, so ``workers`` times as many in all; see
            :class:`nas.recipes.train_job.TrainJobRecipe`. ``nas plan`` counts each training as one process.
        hand_made: further detectors to compare with, under the same seeds as winner and baseline.
        tried_before: every recipe tried on these images before, a line each; the report and the results show
            them, for a table is only worth what was not tried until it came out well.
    """

    train: TrainRecipe
    seeds: int = 3
    first_seed: int = 1000
    rivals: tuple[Literal["stages", "random"], ...] = ()
    rival_seeds: int = 1
    ranks: int = 1
    hand_made: tuple[HandMadeRecipe, ...] = ()
    tried_before: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.require("seeds", self.seeds >= 1, "at least 1")
        self.require("rival_seeds", self.rival_seeds >= 1, "at least 1")
        refuse_auto(self.train)
        require_ranks(self.ranks, self.train, "retrain.train")
        names = [one.name for one in self.hand_made]
        taken = {"winner", "baseline", "random", "stages"}.intersection(names)
        self.require(
            "hand_made",
            len(set(names)) == len(names) and not taken,
            "rivals with names of their own, none of them winner, baseline, random or stages",
        )


@dataclass(frozen=True, kw_only=True)
class RayRecipe(Recipe):
    """Where the workers of ``engine: ray`` are, and what each of them takes.

    Args:
        address: of a running cluster's head node (``host:port``), or ``auto`` for the cluster of this machine; one
            that only this machine reaches is started for the search when left out.
        cpus: that Ray counts for each worker; its ``threads`` when left out.
        gpus: that Ray counts for each worker; with 0.25 four workers share a GPU.
        data_on_nodes: every node reads the images from ``data.root`` itself; otherwise they travel from the driver,
            once a node, which needs no shared disk. With a ``data.cache``, which is for what does not fit into memory,
            they have to be on the nodes.
    """

    address: str | None = None
    cpus: float | None = None
    gpus: float = 0.0
    data_on_nodes: bool = False

    def __post_init__(self) -> None:
        self.require(
            "address",
            self.address is None or not self.address.startswith("ray://"),
            "host:port or auto; the search itself has to run on a node of the cluster",
        )
        self.require("cpus", self.cpus is None or self.cpus > 0, "above 0, or null for the number of threads")
        self.require("gpus", self.gpus >= 0, "0 or more; a fraction lets workers share one")


@dataclass(frozen=True, kw_only=True)
class SearchRecipe(Recipe):
    """What the recipe of every method says: data, detector, the final table.

    Args:
        name: shown in reports.
        method: the procedure, a name of ``nas.methods.catalog``; decides which further keys there are.
        seed: of everything but the final table.
        budget: of the whole run, retraining included: a time (``6h``, ``90min``, ``2d``), trials (``200 trials``) or
            backbone multiply-adds (``1e18 MACs``); divided over the phases before anything is spent. A run may be
            resumed with a larger one.
        engine: who scores candidates: ``serial``, this process; ``processes``, as many others as there are
            ``workers``; or ``ray``, as many workers on a Ray cluster. None of them changes a score or a candidate.
        batch: candidates that are asked for before the first of them is scored, and so the most that can be scored
            side by side. Part of the search: with another batch a controller proposes other candidates.
        order: ``rounds``: all of a batch are told, in their order, before the next are asked for, so that any number
            of workers finds the same; ``free``: ``batch`` candidates are under way at any time, no worker waits, and
            what is asked for depends on who is first (``nas replay`` derives it again from what was known then).
        retries: how often a candidate is tried again whose worker died or took too long.
        deadline: seconds that a worker may take for one candidate, or for its way to the next rung; any
            number when left out.
        ray: settings of ``engine: ray``.
        workers: processes that train networks of the final table side by side, and with other engines than ``serial``
            those that score candidates.
        threads: torch threads of each worker; part of the run's record, because sums depend on it.
        device: ``auto`` takes a GPU where there is one.
        loggers: ``tensorboard``, ``mlflow``, ``wandb``: where numbers go beside the run's own files. None changes a
            result, and one that fails is switched off.
        storage: URL of a database for the trials (``sqlite:///study.db``, ``postgresql://...``); a journal
            in the run directory when left out.
        data: the images.
        detector: built around every backbone.
        retrain: the final table; without it a run ends with the winner.
    """

    name: str
    method: str
    seed: int = 0
    engine: Literal["serial", "processes", "ray"] = "serial"
    batch: int = 4
    order: Literal["rounds", "free"] = "rounds"
    retries: int = 2
    deadline: float | None = None
    ray: RayRecipe = field(default_factory=RayRecipe)
    workers: int = 1
    threads: int = 1
    device: str = "auto"
    budget: str | None = None
    loggers: tuple[LoggerName, ...] = ()
    storage: str | None = None
    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    retrain: RetrainRecipe | None = None

    @property
    def ablated(self) -> tuple[str, ...]:
        """Names of networks that the method puts into the final table beside the rivals."""
        return ()

    def __post_init__(self) -> None:
        if self.budget is not None:
            try:
                read_budget(self.budget)
            except ConfigError as error:
                raise FieldError("budget", self.budget, f"allowed is {ALLOWED}") from error
        self.require("batch", self.batch >= 1, "at least 1")
        self.require("retries", self.retries >= 0, "0 or more")
        self.require(
            "deadline", self.deadline is None or self.deadline > 0, "above 0 seconds, or null for any number"
        )
        self.require(
            "deadline",
            self.deadline is None or self.engine != "serial",
            "null with engine serial, which cannot leave a candidate; choose engine processes or ray",
        )
        self.require("workers", self.workers >= 1, "at least 1")
        self.require("threads", self.threads >= 1, "at least 1")
        require_each_once(self, self.loggers)
        cpus = self.ray.cpus
        if cpus is not None and cpus < self.threads:
            raise FieldError(
                "ray.cpus", cpus, f"allowed is at least the {self.threads} threads of each worker"
            )
        if self.engine == "ray" and self.data.cache is not None and not self.ray.data_on_nodes:
            raise FieldError(
                "ray.data_on_nodes",
                False,
                "allowed is true where there is a data.cache: pixels for which memory is too small do not travel",
            )
        if self.data.orientation != "fixed":
            raise FieldError(
                "data.orientation",
                self.data.orientation,
                "allowed is fixed in a search, whose candidates are compared at the cost of one image size; a training "
                "of what it finds may have either",
            )
        require_masks(self.data, self.detector)
        for one in self.retrain.hand_made if self.retrain is not None else ():
            require_masks(self.data, one.detector)
            if one.name in self.ablated:
                raise FieldError("retrain.hand_made", one.name, "allowed is a name that no ablation has")


def refuse_free_rungs(recipe: SearchRecipe, rungs: object, name: str = "search.rungs") -> None:
    """Raise where candidates are compared at rungs and no round brings them there together.

    Args:
        recipe: that has them.
        rungs: the field's value.
        name: of the field.

    Raises:
        FieldError: it is so.
    """
    if recipe.order == "free" and rungs is not None:
        raise FieldError("order", "free", f"allowed with {name} is rounds; or leave {name} out")


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
