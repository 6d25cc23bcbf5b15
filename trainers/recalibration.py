"""Statistics of batch normalisation computed anew from training images, for a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.detectors.detector import Detector
from trainers.precision import autocast
from trainers.recipes import Amp


@contextmanager
def recalibrated(detector: Detector, batches: Iterable[Tensor], *, amp: Amp = "off") -> Iterator[None]:
    """Inside, means and variances are those of ``batches``; before and after, those of the training.

    The practice of DetNAS and SPOS for paths of a supernet, whose running statistics belong to no path; after a short
    training they are needed too, because a running mean with decay 0.99 still remembers its initial value after a
    hundred steps. A norm that no batch reaches keeps the statistics of training, for they are the best known.

    Args:
        detector: in evaluation mode afterwards; its weights stay.
        batches: images (N, 3, H, W) on the detector's device; each counts the same, in any order.
        amp: precision of the passes.
    """
    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm)]
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    inside = [
        sum(isinstance(module, _BatchNorm) for module in part.modules())
        for part in (detector.backbone.body, detector.backbone)
    ]
    try:
        detector.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average: independent of the order of the batches
            norm.train()
        with torch.no_grad():
            for images in batches:
                with autocast(images.device, amp):
                    # Nothing behind the last of them is needed.
                    if inside[0] == len(norms):
                        detector.backbone.body(detector.normalise(images))
                    elif inside[1] == len(norms):
                        detector.backbone(detector.normalise(images))
                    else:
                        detector.detections(images)
        for norm, state in zip(norms, saved, strict=True):
            norm.eval()
            if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0:
                _restore(norm, state)
        yield
    finally:
        for norm, state, momentum in zip(norms, saved, momenta, strict=True):
            _restore(norm, state)
            norm.momentum = momentum


def _restore(norm: nn.Module, state: dict[str, Tensor]) -> None:
    for name, buffer in norm.named_buffers():
        buffer.copy_(state[name])
