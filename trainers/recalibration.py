"""Statistics of batch normalisation computed anew from training images, for a time."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.detectors.detector import Detector
from trainers.precision import autocast
from trainers.recipes import Amp


class Recalibration:
    """The practice of DetNAS and SPOS for paths of a supernet, whose running statistics belong to no path.

    After a short training it is needed too, because a running mean with decay 0.99 still remembers its initial value
    after a hundred steps. A norm that no batch reaches keeps the statistics of training, for they are the best known.

    Args:
        detector: its weights stay. What it consists of is looked at once: a search comes back for every candidate.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._modules = list(detector.modules())
        self._norms = [one for one in self._modules if isinstance(one, _BatchNorm)]
        backbone = detector.backbone
        inside = [
            sum(isinstance(one, _BatchNorm) for one in part.modules()) for part in (backbone.body, backbone)
        ]
        # Nothing behind the last of them is needed.
        self._pass = detector.detections
        if inside[0] == len(self._norms):
            self._pass = lambda images: backbone.body(detector.normalise(images))
        elif inside[1] == len(self._norms):
            self._pass = lambda images: backbone(detector.normalise(images))

    @contextmanager
    def over(self, batches: Iterable[Tensor], *, amp: Amp = "off") -> Iterator[None]:
        """Inside, means and variances are those of ``batches``; before and after, those of the training.

        Args:
            batches: images (N, 3, H, W) on the detector's device; each counts the same, in any order. The detector
                is in evaluation mode afterwards.
            amp: precision of the passes.
        """
        saved = [[one.clone() for one in _statistics(norm)] for norm in self._norms]
        momenta = [norm.momentum for norm in self._norms]
        try:
            if any(one.training for one in self._modules):
                self._detector.eval()
            for norm in self._norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average: independent of the order of the batches
                norm.train()
            with torch.no_grad():
                for images in batches:
                    with autocast(images.device, amp):
                        self._pass(images)
            for norm, state in zip(self._norms, saved, strict=True):
                norm.eval()
                if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0:
                    _restore(norm, state)
            yield
        finally:
            for norm, state, momentum in zip(self._norms, saved, momenta, strict=True):
                _restore(norm, state)
                norm.momentum = momentum


def recalibrated(
    detector: Detector, batches: Iterable[Tensor], *, amp: Amp = "off"
) -> AbstractContextManager[None]:
    """:meth:`Recalibration.over` for those who come once."""
    return Recalibration(detector).over(batches, amp=amp)


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    found = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [one for one in found if one is not None]


def _restore(norm: _BatchNorm, state: Iterable[Tensor]) -> None:
    for buffer, one in zip(_statistics(norm), state, strict=True):
        buffer.copy_(one)
