"""torchvision's sampler of regions, for images that lie in parts on several ranks."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from trainers.ranks import ALONE, Ranks


class SharedSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]  # torchvision ships no types
    """Chooses for its part of the batch what one process would choose for the whole batch.

    A draw's length is the number of an image's regions, and the next image's draw begins where it ends, so all ranks
    draw for all images.

    Attributes:
        ranks: those that compute losses together.
        chosen: regions of this rank's images in the last call, and the positive ones among them.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__(batch_size_per_image, positive_fraction)
        self.ranks: Ranks = ALONE
        self.chosen = (0, 0)

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Matches of every image's regions (-1 ignored, 0 negative) -> masks of the positive and negative ones."""
        if self.ranks.count == 1:
            return super().__call__(matched_idxs)  # type: ignore[no-any-return]
        found = [(torch.where(one >= 1)[0], torch.where(one == 0)[0]) for one in matched_idxs]
        sizes = torch.tensor([[len(positive), len(negative)] for positive, negative in found])
        device = matched_idxs[0].device
        everywhere = self.ranks.gathered(sizes.to(self.ranks.device)).flatten(0, 1).tolist()
        draws = [[torch.randperm(size, device=device) for size in pair] for pair in everywhere]
        begin = self.ranks.rank * len(found)
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        taken = [0, 0]
        for matched, pair, orders in zip(matched_idxs, found, draws[begin:], strict=False):
            wanted = int(self.batch_size_per_image * self.positive_fraction)
            for kind, (regions, order) in enumerate(zip(pair, orders, strict=True)):
                chosen = regions[order[:wanted]]
                masks[kind].append(torch.zeros_like(matched, dtype=torch.uint8))
                masks[kind][-1][chosen] = 1
                taken[kind] += len(chosen)
                wanted = self.batch_size_per_image - len(chosen)
        self.chosen = (sum(taken), taken[0])
        return masks

    def share(self, *, positives: bool = False) -> float:
        """What a mean over this rank's regions is multiplied by, so that the mean over ranks is that over all regions.

        Args:
            positives: it is a mean over the positive ones.
        """
        own = self.chosen[1] if positives else self.chosen[0]
        return own * self.ranks.count / max(1, self.ranks.total(own))
