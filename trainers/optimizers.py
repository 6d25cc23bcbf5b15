"""The optimisers that a recipe may name."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.recipes import TrainRecipe


def make_optimizer(weights: Sequence[Tensor], recipe: TrainRecipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of these weights."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give weights that move for the first time a momentum of zero, where others have moved before.

    That is what they have anyhow; torch's fused SGD fails when some have one and some do not, as in a supernet.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        moved = [one for one in group["params"] if one.grad is not None]
        new = [one for one in moved if optimizer.state[one].get("momentum_buffer") is None]
        for one in new if group["momentum"] and len(new) < len(moved) else ():
            optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)
