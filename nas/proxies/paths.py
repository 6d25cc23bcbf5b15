"""Which path a supernet takes at each step of its training. Torch-free."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

from search_spaces.architecture import Architecture
from search_spaces.randomness import rng_for

Sampling = Literal["uniform", "fair", "sandwich"]
Draw = Callable[[int], Architecture]
"""Step of the training -> path."""
SANDWICH = 4
"""Steps in which the largest and the smallest path come once each; the others are drawn."""


def uniform(sample: Callable[[Random], Architecture], seed: int) -> Draw:
    """A path by chance at every step (Guo et al. 2019, "Single Path One-Shot", section 3.2; CR-NAS, section 3.2).

    Args:
        sample: draws a path.
        seed: of the training.
    """
    return lambda step: sample(rng_for(seed, "path", step))


def drawer(
    sampling: Sampling,
    options: Sequence[Sequence[int]],
    make: Callable[[Sequence[int]], Architecture],
    sample: Callable[[Random], Architecture],
    seed: int,
) -> Draw:
    """Paths by the rule of a recipe.

    Args:
        sampling: ``uniform``; ``fair``: each option of a decision once in as many steps as it has options, in an order
            drawn anew each time and for each decision (after Chu et al. 2019, "FairNAS", section 3.3, which adds up the
            gradients of such a round before a step of the optimiser; here every path has its own);
            ``sandwich``: of every four steps one takes the largest path and one the smallest (after Yu and Huang 2019,
            "Universally Slimmable Networks", section 3.2, which takes them all in one step).
        options: of every decision, ascending.
        make: a path from one option for every decision.
        sample: draws a path uniformly.
        seed: of the training.
    """
    by_chance = uniform(sample, seed)
    if sampling == "uniform":
        return by_chance

    def fair(step: int) -> Architecture:
        chosen = []
        for decision, allowed in enumerate(options):
            turn, place = divmod(step, len(allowed))
            order = rng_for(seed, "fair", decision, turn).sample(list(allowed), len(allowed))
            chosen.append(order[place])
        return make(chosen)

    def sandwich(step: int) -> Architecture:
        if step % SANDWICH < 2:
            return make([allowed[-1 if step % SANDWICH == 0 else 0] for allowed in options])
        return by_chance(step)

    return fair if sampling == "fair" else sandwich
