"""What ``nas pretrain`` reads."""

from dataclasses import dataclass, field

from nas.recipes.train_job import JobRecipe
from trainers.recipes import ImageFolderRecipe


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(JobRecipe):
    """What ``nas pretrain ARCH RECIPE`` reads: one training of one backbone to tell classes apart.

    Args:
        data: the labelled images.
        label_smoothing: share of every label that is spread over all classes (Szegedy et al. 2016, section 7).
    """

    data: ImageFolderRecipe = field(default_factory=ImageFolderRecipe)
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("label_smoothing", 0 <= self.label_smoothing < 1, "a share from 0 to below 1")
