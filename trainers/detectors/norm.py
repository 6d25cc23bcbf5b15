"""Batch normalisation for heads, whose batches may hold next to nothing."""

from torch import Tensor, nn


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
