"""The recipe of CR-NAS."""

from dataclasses import dataclass, field
from typing import Literal

from nas.proxies.paths import Sampling
from nas.recipes.controller import ControllerRecipe
from nas.recipes.crnas_space import SpaceRecipe
from nas.recipes.race import RaceRecipe
from nas.recipes.search import SearchRecipe, refuse_free_rungs
from search_spaces.recipe import FieldError, Recipe
from trainers.recipes import TrainRecipe, refuse_auto

RACED = ("exhaustive", "greedy", "random")
"""Controllers that lose nothing when a candidate is stopped: no proposal follows from the score of a poor one."""


@dataclass(frozen=True, kw_only=True)
class SupernetRecipe(Recipe):
    """How a shared-weight supernet is trained and how a candidate is scored with it.

    Args:
        sharing: ``prefix``: a branch of depth d is the first d blocks of one chain; or ``independent`` branches, the
            paper's figure 2. For the same training the first orders allocations better and needs less memory:
            docs/evidence.md. A dilation supernet has one form only and ignores it.
        inherit: a dilation supernet begins with the weights of the stage supernet of its number: every dilation of a
            block with those of the winner's block, pyramid and head as they are. The paper does not say how it begins.
        sampling: which path each step takes: ``uniform``, by chance (the paper's); ``fair``, every option of a
            decision equally often in each round; ``sandwich``, also the largest and the smallest again and again.
        train: its training; every step takes one path.
        recalibration_batches: training batches that rebuild the BN statistics of a candidate (section 3.3). 0: it is
            scored with those that the training left, which are of all paths; what that does to the order of
            candidates, docs/evidence.md measures. ``prefix`` needs some, for a block has one norm for all depths there.
        score_batch: images in one mini-batch of scoring; undecided genes are drawn anew for each.
        members: supernets that are trained, one after the other, each under a seed of its own and with other images of
            the training split held out; a candidate's score is its mean AP in all of them. The order of one supernet
            moves with both, and that of the mean less: docs/evidence.md. Training, scoring and memory cost as many
            times as much; images in a file (``data.cache``) are not copied.
    """

    sharing: Literal["independent", "prefix"] = "prefix"
    inherit: bool = False
    sampling: Sampling = "uniform"
    train: TrainRecipe = field(default_factory=lambda: TrainRecipe(steps=1000))
    recalibration_batches: int = 12
    score_batch: int = 16
    members: int = 1

    def __post_init__(self) -> None:
        self.require("recalibration_batches", self.recalibration_batches >= 0, "0 or more")
        self.require("score_batch", self.score_batch >= 1, "at least 1")
        self.require("members", self.members >= 1, "at least 1")
        refuse_auto(self.train)
        if self.train.compile:
            raise FieldError(
                "train.compile", True, "allowed is false, for every step of a supernet has another path"
            )
        if self.train.drop_path:
            raise FieldError("train.drop_path", self.train.drop_path, "allowed is 0, for supernets have none")


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe(Recipe):
    """One level of the hierarchical search: a supernet and a controller on it.

    Args:
        supernet: how it is trained and how candidates are scored.
        controller: who proposes.
        race: candidates are stopped on a part of the held-out images; all are scored on all of them when left out.
        choose_by: what makes the winner. ``score``: the highest AP in the supernet, as in the paper. ``mean_rank``: the
            best mean of the ranks by that AP and by NASWOT (Mellor et al. 2021) at random weights; for ``stages`` with
            an exhaustive controller only. An allocation of which NASWOT cannot be had fails. Why, and what is not known
            of it: docs/evidence.md.
    """

    supernet: SupernetRecipe = field(default_factory=SupernetRecipe)
    controller: ControllerRecipe
    race: RaceRecipe | None = None
    choose_by: Literal["score", "mean_rank"] = "score"


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
        for name, phase in (("stages", self.stages), ("dilations", self.dilations)):
            refuse_free_rungs(self, phase and phase.race, f"{name}.race")
            if phase is None or phase.race is None:
                continue
            if phase.supernet.members > 1:
                raise FieldError(
                    f"{name}.supernet.members",
                    phase.supernet.members,
                    f"allowed with {name}.race is 1, for every supernet takes the images of a race in an order of "
                    "its own; or leave the race out",
                )
            if phase.controller.name not in RACED:
                raise FieldError(
                    f"{name}.controller",
                    phase.controller.name or phase.controller.target,
                    f"allowed with {name}.race are {', '.join(RACED)}; or leave the race out",
                )
        self._refuse_mean_rank()
        dilations = self.dilations
        if (
            dilations is not None
            and dilations.supernet.inherit
            and dilations.supernet.members > self.stages.supernet.members
        ):
            raise FieldError(
                "dilations.supernet.members",
                dilations.supernet.members,
                f"allowed with inherit is up to {self.stages.supernet.members}, the number of "
                "stages.supernet.members, for each goes on from the one of its number",
            )
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

    def _refuse_mean_rank(self) -> None:
        """A mean rank is one among all candidates, and only of allocations is it known what it is worth."""
        if self.dilations is not None and self.dilations.choose_by == "mean_rank":
            raise FieldError(
                "dilations.choose_by",
                "mean_rank",
                "allowed is score: no dilations were trained alone, so nobody knows whether NASWOT orders them",
            )
        if self.stages.choose_by == "score":
            return
        controller = self.stages.controller
        if controller.name != "exhaustive":
            raise FieldError(
                "stages.choose_by",
                "mean_rank",
                f"allowed with stages.controller {controller.name or controller.target} is score: ranks are taken "
                "among all allocations, and only exhaustive scores them all; or set stages.controller.name=exhaustive",
            )
        if self.stages.race is not None:
            raise FieldError(
                "stages.choose_by",
                "mean_rank",
                "allowed with stages.race is score: ranks are taken among all allocations, and a race stops some of "
                "them before they have a score; or leave the race out",
            )
