"""SpineNet as an image classifier: the mean of all levels, pooled, and one linear layer.

Du et al. 2020 (arXiv 1912.05027), section 4.2, in the details as the authors' released code. Imports
only torch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """A backbone whose levels have one width, and what turns them into scores.

    Args:
        body: returns level name -> feature map, finest first, and has ``levels``: name -> (channels, stride).
        classes: scores for each image; the authors' ImageNet has 1000 and one for background.
        seed: of the linear layer's weights; without it they come from torch's global generator.

    Raises:
        ValueError: no class at all, or levels of different widths, which cannot be summed.
    """

    def __init__(self, body: nn.Module, classes: int = 1001, *, seed: int | None = None) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: found {classes}; allowed are integers from 1")
        levels: dict[str, tuple[int, int]] = body.levels  # type: ignore[assignment]
        widths = {name: channels for name, (channels, _) in levels.items()}
        if len(set(widths.values())) != 1:
            raise ValueError(f"body: found levels of {widths} channels; allowed is one width for all")
        self.body = body
        self.linear = nn.Linear(next(iter(widths.values())), classes)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> scores before the softmax (N, classes)."""
        coarse_first = list(self.body(x).values())[::-1]
        # From level to level and not at once: where sides do not divide, nearest neighbours differ.
        total: Tensor = coarse_first[0]
        for finer in coarse_first[1:]:
            total = functional.interpolate(total, size=finer.shape[-2:], mode="nearest") + finer
        return self.linear((total / len(coarse_first)).mean((2, 3)))  # type: ignore[no-any-return]
