"""Batch normalisation over the batch of all ranks, for the time in which losses are computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.learner import Learner
from trainers.ranks import ALONE, Ranks


@contextmanager
def together(detector: Learner, ranks: Ranks) -> Iterator[None]:
    """Inside, the detector's losses are its part of those of all ranks: norms and divisors see the whole batch.

    Every rank has to come here and compute losses, for they wait for each other.
    """
    if ranks.count == 1:
        yield
        return
    norms = [one for one in detector.modules() if isinstance(one, _BatchNorm)]
    kinds = [type(one) for one in norms]
    # The class alone changes, so that weights keep their names and whoever holds a module holds the same one.
    for one in norms:
        vars(one).update(ranks=ranks, process_group=None)
        # torch's own is quicker, but takes no tensors of a CPU.
        plain = ranks.device.type == "cuda" and type(one) is nn.BatchNorm2d
        one.__class__ = nn.SyncBatchNorm if plain else SyncedBatchNorm
    detector.ranks = ranks
    try:
        yield
    finally:
        detector.ranks = ALONE
        for one, kind in zip(norms, kinds, strict=True):
            one.__class__ = kind
            del one.ranks, one.process_group


class SyncedBatchNorm(nn.BatchNorm2d):
    """What batch normalisation makes of a batch that lies in parts on all ranks.

    Also of heads, whose regions may be none: torch's ``SyncBatchNorm`` gives NaN where no rank has a value. With less
    than two values a channel on all ranks the running statistics are taken, as by
    :class:`trainers.detectors.norm.BatchNorm`.
    """

    ranks: Ranks

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.running_mean is None,
                0.0,
                self.eps,
            )
        mean, var, count = _statistics(x.detach(), self.ranks)
        if count < 2 and self.running_mean is not None:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._follow(mean, var * (count / (count - 1)))
        out: Tensor = _Normalise.apply(
            x, self.weight, self.bias, mean.float(), var.float(), count, self.eps, self.ranks
        )
        return out

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        assert self.running_mean is not None and self.running_var is not None
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        assert momentum is not None
        for running, found in ((self.running_mean, mean), (self.running_var, var)):
            running.copy_((1 - momentum) * running + momentum * found.to(running.dtype))


def _statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance of each channel over all ranks, float64, and how many values a channel has.

    From each rank's own mean and deviations, in the order of ranks: the same bits on all of them.
    """
    count = x.numel() // x.shape[1]
    axes = [0, *range(2, x.dim())]
    if count:
        var, mean = torch.var_mean(x.float(), dim=axes, correction=0)
    else:
        var = mean = torch.zeros(x.shape[1], device=x.device)
    own = torch.stack((mean.double(), var.double(), torch.full_like(mean, count, dtype=torch.float64)))
    means, variances, counts = ranks.gathered(own).unbind(1)
    total = counts.sum(0)
    weights = counts / total.clamp(min=1)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean) ** 2)).sum(0), float(total[0])


class _Normalise(torch.autograd.Function):
    """Normalise with statistics that all ranks' values have made, and that their gradients reach."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: float,
        eps: float,
        ranks: Ranks,
    ) -> Tensor:
        """(N, C, ...) -> the same shape."""
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.count, ctx.ranks = count, ranks
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias; those of the last two are this rank's part."""
        x, weight, mean, inverse = ctx.saved_tensors
        axes = [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        centred = (x.float() - mean.view(shape)) * inverse.view(shape)
        received = gradient.float()
        own = torch.stack((received.sum(axes), (received * centred).sum(axes)))
        # The mean over ranks, so the divisor is the mean count.
        shared = ctx.ranks.mean(own) * (ctx.ranks.count / ctx.count)
        scale = inverse if weight is None else inverse * weight
        moved = (received - shared[0].view(shape) - centred * shared[1].view(shape)) * scale.view(shape)
        return (
            moved.to(x.dtype),
            None if weight is None else own[1].to(weight.dtype),
            None if weight is None else own[0].to(weight.dtype),
            *[None] * 5,
        )
