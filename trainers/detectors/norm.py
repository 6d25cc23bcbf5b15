"""Batch normalisation for heads, whose batches may hold next to nothing."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from trainers.recipes import DetectorRecipe

TOWERS, REGIONS = 1e-3, 1e-5
"""What is added to the variance in towers over maps and in heads of regions, where a recipe does not say."""

Norm = Callable[[int], nn.Module]
"""Channels -> their normalisation."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics where a batch has none of its own.

    In training, one value a channel (one image, a level of one cell) stops torch's with an error, and none at
    all (no region of any object) turns its running statistics into NaN.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C) -> the same shape."""
        if self.training and x.numel() < 2 * x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() not in (2, 4):
            raise ValueError(f"expected (N, C, H, W) or (N, C), found {tuple(x.shape)}")


def norm_of(recipe: DetectorRecipe, eps: float) -> Norm:
    """Normalisation as a recipe has it.

    Args:
        recipe: of the detector.
        eps: where the recipe leaves it open; :data:`TOWERS` or :data:`REGIONS`.
    """
    return partial(
        BatchNorm,
        eps=eps if recipe.norm_eps is None else recipe.norm_eps,
        momentum=recipe.norm_momentum,
    )
