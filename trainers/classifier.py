"""A backbone that tells classes apart: the papers' step before detection, trained by the same loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.errors import ConfigError
from search_spaces.spinenet.classifier import Classifier as SpineNetClassifier
from trainers.data.image_folder import ImageFolder
from trainers.image_batches import ImageBatches, middle
from trainers.learner import Learner
from trainers.precision import autocast
from trainers.ranks import ALONE, Ranks
from trainers.recipes import Amp, TrainRecipe
from trainers.seeding import torch_seed

_TOP = 5


class LastLevel(nn.Module):
    """The coarsest map of a backbone, averaged over its cells, and one linear layer (He et al. 2016, section 3.3).

    Args:
        body: returns level name -> feature map and has ``levels``: name -> (channels, stride), finest first.
        classes: scores for each image.
        seed: of the linear layer's weights.
    """

    def __init__(self, body: nn.Module, classes: int, *, seed: int) -> None:
        super().__init__()
        levels: Mapping[str, tuple[int, int]] = body.levels  # type: ignore[assignment]
        self.level, (channels, _) = list(levels.items())[-1]
        self.body = body
        with torch_seed(seed):
            self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> scores before the softmax (N, classes)."""
        return self.linear(self.body(x)[self.level].mean((2, 3)))  # type: ignore[no-any-return]


def _all_levels(body: nn.Module, classes: int, *, seed: int) -> nn.Module:
    return SpineNetClassifier(body, classes, seed=seed)


HEADS: dict[str, Callable[..., nn.Module]] = {
    "spinenet": _all_levels,
    "spinenet.mobile": _all_levels,
}
"""Family -> what makes scores of its networks' maps (body, classes, seed), with ``body`` under that name;
:class:`LastLevel` for every other."""


class Classifier(Learner):
    """Scores of classes from a backbone, and the loss they are trained by.

    Args:
        network: images -> scores (N, classes), the searched backbone under ``body``.
        label_smoothing: share of every label that is spread over all classes (Szegedy et al. 2016, section 7).
    """

    def __init__(self, network: nn.Module, label_smoothing: float) -> None:
        super().__init__(network)
        self.label_smoothing = label_smoothing

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), bytes or floats from 0 to 1 -> scores before the softmax (N, classes)."""
        return self.backbone(self.normalise(images))  # type: ignore[no-any-return]

    def losses(self, images: Tensor, targets: Sequence[int]) -> dict[str, Tensor]:
        """Cross-entropy with smoothed labels."""
        labels = torch.tensor(targets, device=images.device)
        scores = self(images).float()
        return {
            "classification": functional.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)
        }

    def batches(self, data: ImageFolder, recipe: TrainRecipe, seed: int) -> ImageBatches:
        """Random crops, mirrored or not; see :class:`trainers.image_batches.ImageBatches`.

        Raises:
            ConfigError: an augmentation that is for detectors; or see
                :meth:`trainers.learner.Learner.require_values`.
        """
        for name in ("scale_jitter", "sizes"):
            if found := getattr(recipe, name):
                raise ConfigError(
                    f"train.{name}: found {list(found)}, which is for detectors; leave it out and set data.crop_area"
                )
        self.require_values(recipe, (data.recipe.image_size,) * 2)
        return ImageBatches(data, recipe, seed)


def build_classifier(
    family: str, backbone: nn.Module, num_classes: int, *, label_smoothing: float, seed: int
) -> Classifier:
    """A classifier around a backbone, whose weights are left as they are.

    Args:
        family: of the backbone, as an architecture names it.
        backbone: declares ``levels`` and returns a map for each.
        num_classes: scores for each image.
        label_smoothing: see :class:`Classifier`.
        seed: of the linear layer's weights.
    """
    return Classifier(HEADS.get(family, LastLevel)(backbone, num_classes, seed=seed), label_smoothing)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well images are classified.

    Attributes:
        top1: share of images whose label has the highest score.
        top5: share of those whose label is among the five highest, or among all where there are fewer classes.
        loss: mean cross-entropy, labels not smoothed.
    """

    top1: float
    top5: float
    loss: float


@torch.no_grad()
def accuracy(
    classifier: Classifier,
    data: ImageFolder,
    *,
    batch_size: int,
    device: torch.device,
    amp: Amp = "off",
    ranks: Ranks = ALONE,
) -> Accuracy:
    """Classify the square in the middle of every image; the classifier's mode is as before afterwards.

    Args:
        classifier: on ``device``.
        data: images to look at.
        batch_size: images at a time.
        device: where the classifier is.
        amp: as in training.
        ranks: each of them looks at its part of the images; all get the same result.
    """
    was_training = classifier.training
    classifier.eval()
    begin, end = ranks.part(len(data))
    found: list[tuple[int, int, float]] = []
    try:
        for start in range(begin, end, batch_size):
            chosen = range(start, min(start + batch_size, end))
            images = torch.stack([middle(data.pixels(index), data.recipe) for index in chosen]).to(device)
            labels = torch.tensor([data.labels[index] for index in chosen], device=device)
            with autocast(device, amp):
                scores = classifier(images).float()
            hits = scores.topk(min(_TOP, scores.shape[1]), dim=1).indices == labels[:, None]
            loss = float(functional.cross_entropy(scores, labels, reduction="sum"))
            found.append((int(hits[:, 0].sum()), int(hits.sum()), loss))
    finally:
        classifier.train(was_training)
    every = [one for some in ranks.all_of(found) for one in some]
    first, five, loss = (sum(column) / len(data) for column in zip(*every, strict=True))
    return Accuracy(top1=first, top5=five, loss=loss)
