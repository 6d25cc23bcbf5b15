"""Effective receptive fields: which input pixels the centre of a feature map reacts to.

Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", by the
input-gradient method; CR-NAS (Liang et al. 2020, figure 1) argues from these maps that block counts should
be reallocated. Any backbone that returns a dict of feature maps can be measured, trained or not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.families import family_of
from search_spaces.randomness import seed_for

AREA_SHARE = 0.0455
"""Pixels above this share of the maximum count as the field: 1 - 95.45 %, two sigmas of a Gaussian."""


@dataclass(frozen=True, kw_only=True)
class EffectiveField:
    """The effective receptive field of the central cell of one level.

    Args:
        std: of the map about its centroid in px, one axis (root of the mean of both axes' variances).
        radius: square root of the number of pixels above 4.55 % of the maximum, in px.
        box: (height, width) in px of the pixels with any gradient; the theoretical receptive field, as far as
            it lies on the canvas.
        map: float64 (H, W), absolute input gradient summed over channels and averaged over images.
    """

    std: float
    radius: float
    box: tuple[int, int]
    map: npt.NDArray[np.float64]


def noise(count: int, size: tuple[int, int], *, seed: int) -> Tensor:
    """Standard normal images (count, 3, H, W), the same for the same seed."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def calibrate_bn_on_noise(backbone: nn.Module, images: Tensor) -> None:
    """Set every batch normalisation's statistics to those of these images; the mode is kept.

    At random weights the untouched statistics (0 and 1) let activations grow from block to block, and the
    deepest blocks would drown the others in the gradient.

    Args:
        backbone: changed in place.
        images: float (N, 3, H, W); one batch.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    modes = {module: module.training for module in backbone.modules()}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    backbone.train()
    with torch.no_grad():
        backbone(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training


def measure_erf(backbone: nn.Module, images: Tensor) -> dict[str, EffectiveField]:
    """Effective receptive field of every level, in evaluation mode; the backbone is left as it was.

    For each image the channels of the spatially central cell are summed and propagated back to the input.

    Args:
        backbone: ``backbone(images)`` returns level name -> feature map (N, C, h, w).
        images: float (N, 3, H, W), on the backbone's device.
    """
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    gradients: dict[str, npt.NDArray[np.float64]] = {}
    with torch.enable_grad():
        for image in images:
            read = image[None].detach().clone().requires_grad_()
            maps: dict[str, Tensor] = backbone(read)
            for name, level in maps.items():
                centre = level[0, :, level.shape[2] // 2, level.shape[3] // 2].sum()
                (gradient,) = torch.autograd.grad(centre, read, retain_graph=True)
                seen = gradient[0].abs().sum(0).double().cpu().numpy()
                gradients[name] = gradients.get(name, 0) + seen / len(images)
    for module, training in modes.items():
        module.training = training
    return {name: _field(gradient) for name, gradient in gradients.items()}


def erf_at_random_init(
    architecture: Architecture, *, seed: int = 0, input_size: tuple[int, int] = (512, 512), images: int = 2
) -> dict[str, EffectiveField]:
    """What the layers alone do: random weights, BN calibrated on noise, measured on noise.

    Args:
        architecture: of any family.
        seed: of weights and noise.
        input_size: (height, width) of the canvas in px.
        images: noise images, for calibration and again, other ones, for measurement.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture.
    """
    backbone = family_of(architecture).build(architecture, seed=seed_for(seed, "weights"))
    calibrate_bn_on_noise(backbone, noise(images, input_size, seed=seed_for(seed, "calibration")))
    return measure_erf(backbone, noise(images, input_size, seed=seed_for(seed, "images")))


def _field(gradient: npt.NDArray[Any]) -> EffectiveField:
    rows, columns = np.indices(gradient.shape, dtype=np.float64)
    total = gradient.sum()
    if total == 0:
        return EffectiveField(std=0.0, radius=0.0, box=(0, 0), map=gradient)
    variance = 0.0
    for axis in (rows, columns):
        centroid = (axis * gradient).sum() / total
        variance += float(((axis - centroid) ** 2 * gradient).sum() / total) / 2
    touched_rows, touched_columns = np.nonzero(gradient)
    return EffectiveField(
        std=variance**0.5,
        radius=float((gradient > AREA_SHARE * gradient.max()).sum()) ** 0.5,
        box=(int(np.ptp(touched_rows)) + 1, int(np.ptp(touched_columns)) + 1),
        map=gradient,
    )
