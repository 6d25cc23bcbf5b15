"""What ``nas train`` reads."""

from dataclasses import dataclass, field
from typing import Literal

from nas.recipes.loggers import LoggerName, require_each_once
from search_spaces.recipe import FieldError, Recipe
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe, require_masks
from trainers.sharing import advice


@dataclass(frozen=True, kw_only=True)
class JobRecipe(Recipe):
    """What every training of one backbone to completion says, whatever it learns.

    Args:
        name: shown in results.
        seed: of initial weights, order and augmentation.
        threads: torch threads; part of the record, because sums depend on it.
        device: ``auto`` takes a GPU where there is one.
        loggers: as of a search; no part of the training's record.
        init: ``scratch``, as the paper's table compares networks; ``bundle``: the backbone begins with the weights
            beside its description, for other images or another detector; ``imagenet`` (or ``imagenet_v2``): with
            torchvision's, fetched into torch's own cache where they are not there yet; or a path, relative to where
            the command runs: another bundle, a directory of ``nas train`` or ``nas pretrain``, or a ``.pth``, ``.pt``
            or ``.safetensors`` file in torchvision's names.
        remap: the weights may be of another allocation of the same network; they are mapped into this one block by
            block (:mod:`search_spaces.crnas.remapping`), and what has no block to take from is drawn.
        activation: trains the network with this activation in place of its own (SpineNet's protocol C retrains
            with swish what was found with ReLU); a network whose family has no such setting is refused.
        train: length, optimiser, schedule.
        ranks: processes that train the one network together, each with a GPU of its own where there are any; they
            share ``train.batch_size`` images a step, and losses are those of one process up to rounding. Like the two
            fields below no part of what is trained: a stopped training may go on with others.
        launcher: who starts the ranks, ``torchrun`` or Ray Train. In a process that torchrun has started already
            nobody is started.
        address: of a running Ray cluster (``host:port`` or ``auto``) whose nodes see the training's directory; with
            ``launcher: ray`` only. One that only this machine reaches is started when left out.
    """

    name: str
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    loggers: tuple[LoggerName, ...] = ()
    init: str = "scratch"
    remap: bool = False
    activation: Literal["relu", "swish", "hswish"] | None = None
    train: TrainRecipe
    ranks: int = 1
    launcher: Literal["torchrun", "ray"] = "torchrun"
    address: str | None = None

    def __post_init__(self) -> None:
        require_each_once(self, self.loggers)
        require_ranks(self.ranks, self.train)
        self.require("init", bool(self.init), "scratch, bundle, imagenet, imagenet_v2 or a path")
        self.require(
            "remap",
            not self.remap or self.init not in ("scratch", "bundle"),
            f"false with init {self.init}; it is for the weights of another network",
        )
        self.require(
            "address",
            self.address is None or self.launcher == "ray",
            "null with launcher torchrun; or choose ray",
        )


@dataclass(frozen=True, kw_only=True)
class TrainJobRecipe(JobRecipe):
    """What ``nas train BUNDLE RECIPE`` reads: one training of one backbone in a detector to completion.

    Args:
        data: the images.
        detector: built around the backbone.
    """

    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_masks(self.data, self.detector)


def require_ranks(ranks: int, train: TrainRecipe, path: str = "train") -> None:
    """So many ranks can share the batch, and train so; ``path`` is that of ``train`` in the recipe.

    Raises:
        FieldError: naming ``ranks``.
    """
    if ranks < 1 or train.micro_batch % ranks:
        images = f"{path}.batch_size" + ("" if train.accumulate == 1 else f" / {path}.accumulate")
        raise FieldError(
            "ranks",
            ranks,
            f"allowed are divisors of {images}, {train.micro_batch}, the images of all ranks together"
            f"{advice(train.batch_size, ranks, train.accumulate, path)}",
        )
    if train.compile and ranks > 1:
        raise FieldError("ranks", ranks, "allowed with train.compile is 1")
