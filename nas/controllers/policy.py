"""A policy that decides a whole candidate pick by pick, in numpy: what policy gradients learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Value
from search_spaces.gene import Gene

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Sampled candidates: N of them, of S picks each, over the D options of all picks together.

    Args:
        columns: of the options picked, (N, S); counted through the options of all picks.
        prior: chance of each option if picking goes on at random, (N, D); 0: it was not allowed.
    """

    columns: Integers
    prior: Floats

    def __getitem__(self, rows: list[int]) -> "Draws":
        return Draws(self.columns[rows], self.prior[rows])


class Policy:
    """An autoregressive softmax over the picks of all genes, in the order of the space.

    The logits of a pick are linear in what was picked before it, within its gene and in all genes before: a bias
    for each option, plus a weight for each pair of an earlier option picked and this one, summed and divided by
    the root of the number of earlier picks. So every pick can lean on all earlier ones, and a step of learning
    moves the second pick of a seen candidate as far as the seventieth. Options are weighted by :meth:`Gene.ways`:
    those ruled out are never drawn, and an untrained policy (all parameters zero) is uniform over the values of
    the genes.

    Args:
        genes: by name, in the order of the decisions.
    """

    def __init__(self, genes: Mapping[str, Gene]) -> None:
        self._genes = dict(genes)
        sizes = [size for gene in genes.values() for size in gene.picks]
        self._ends = np.cumsum([0, *sizes])
        self._pick_of = np.repeat(np.arange(len(sizes)), sizes)  # (D,)
        self._prior = lru_cache(maxsize=4096)(self._shares)
        self._scale = 1.0 / np.sqrt(np.maximum(self._pick_of, 1))  # of the weights, by the picks before
        self.bias: Floats = np.zeros(len(self._pick_of))
        self.weights: Floats = np.zeros((len(self._pick_of),) * 2)  # from row to column; 0 but to later picks

    def draw(self, rng: Random, count: int) -> Draws:
        """Sample candidates.

        Args:
            rng: gives one number for each pick of each candidate.
            count: N, how many.
        """
        logits = np.tile(self.bias, (count, 1))
        prior = np.zeros_like(logits)
        columns = np.zeros((count, len(self._ends) - 1), dtype=np.int64)
        spans = enumerate(pairwise(self._ends.tolist()))
        for name, gene in self._genes.items():
            picked: list[tuple[int, ...]] = [()] * count
            for _ in gene.picks:
                pick, (start, end) = next(spans)
                prior[:, start:end] = [self._prior(name, before) for before in picked]
                shares = np.array([[rng.random()] for _ in picked])
                options = _options(_weighted(logits[:, start:end], prior[:, start:end]), shares)
                columns[:, pick] = start + options
                picked = [(*before, option) for before, option in zip(picked, options.tolist(), strict=True)]
                logits[:, end:] += self.weights[columns[:, pick], end:] * self._scale[end:]
        return Draws(columns, prior)

    def values(self, columns: Integers) -> dict[str, Value]:
        """The value of each gene in one draw, from its row of :attr:`Draws.columns`."""
        picks = iter((columns - self._ends[:-1]).tolist())
        return {
            name: gene.from_picks([next(picks) for _ in gene.picks]) for name, gene in self._genes.items()
        }

    def _shares(self, name: str, picked: tuple[int, ...]) -> Floats:
        ways = self._genes[name].ways(picked)
        total = sum(ways)
        return np.array([each / total for each in ways])

    def probabilities(self, draws: Draws) -> tuple[Floats, Floats]:
        """What the policy says now at each pick of the draws.

        Returns:
            The probability of each option, (N, D), and the logarithm of its quotient with the prior, (N, D),
            which is finite everywhere; it means nothing where the prior is 0.
        """
        starts = self._ends[:-1]
        # A sum of rows, not a product of matrices: its digits depend on no library and no number of threads.
        logits = self.bias + self.weights[draws.columns].sum(axis=1) * self._scale
        highest = np.maximum.reduceat(np.where(draws.prior > 0, logits, -np.inf), starts, axis=1)
        logits = logits - highest[:, self._pick_of]
        weighted = draws.prior * np.exp(np.minimum(logits, 0.0))
        totals = np.add.reduceat(weighted, starts, axis=1)[:, self._pick_of]
        return weighted / totals, logits - np.log(totals)

    def log_quotients(self, draws: Draws) -> Floats:
        """Of each option picked, the logarithm of its probability over its prior, (N, S)."""
        return np.take_along_axis(self.probabilities(draws)[1], draws.columns, axis=1)

    def gradient(
        self, draws: Draws, advantages: Floats, old: Floats, *, clip: float | None, entropy: float
    ) -> tuple[Floats, Floats]:
        """Gradient of the objective that :meth:`improve` climbs.

        The objective is the mean over the draws of the sum over their picks of ``min(r A, clipped(r) A) + entropy
        H``: r is the pick's probability over the one it had when drawn (Schulman et al. 2017, "Proximal policy
        optimization algorithms", equation 7), A the draw's advantage, H the entropy of the pick given those
        before it, less that of the prior. Where r is 1 the gradient of the first term is that of REINFORCE
        (Williams 1992).

        Args:
            draws: N of them.
            advantages: A of each, (N,).
            old: :meth:`log_quotients` at the time of drawing, (N, S).
            clip: r counts between 1 - clip and 1 + clip; None: everywhere.
            entropy: weight of H.

        Returns:
            With respect to ``bias`` and ``weights``.
        """
        chance, log_quotient = self.probabilities(draws)
        ratio = np.exp(np.take_along_axis(log_quotient, draws.columns, axis=1) - old)
        gain = advantages[:, None] * ratio
        if clip is not None:
            beyond = np.where(advantages[:, None] > 0, ratio > 1 + clip, ratio < 1 - clip)
            gain = np.where(beyond, 0.0, gain)
        mean_log = np.add.reduceat(chance * log_quotient, self._ends[:-1], axis=1)
        slope = -chance * gain[:, self._pick_of]
        slope -= entropy * chance * (log_quotient - mean_log[:, self._pick_of])
        rows = np.arange(len(slope))[:, None]
        slope[rows, draws.columns] += gain
        slope /= len(slope)
        weights = np.zeros_like(self.weights)
        later = self._pick_of[None, :] > np.arange(len(self._ends) - 1)[:, None]
        for columns, row in zip(draws.columns, slope * self._scale, strict=True):
            weights[columns] += later * row
        return slope.sum(axis=0), weights

    def improve(
        self,
        draws: Draws,
        advantages: Floats,
        *,
        learning_rate: float,
        entropy: float,
        epochs: int = 1,
        clip: float | None = None,
    ) -> None:
        """Climb: ``epochs`` steps of gradient ascent on the same draws, taken with this policy.

        One epoch is REINFORCE; several are PPO.
        """
        old = self.log_quotients(draws)
        for _ in range(epochs):
            bias, weights = self.gradient(draws, advantages, old, clip=clip, entropy=entropy)
            self.bias += learning_rate * bias
            self.weights += learning_rate * weights


def _weighted(logits: Floats, prior: Floats) -> Floats:
    """Probabilities up to a factor, (N, options)."""
    highest = np.where(prior > 0, logits, -np.inf).max(axis=1, keepdims=True)
    weighted: Floats = prior * np.exp(np.minimum(logits - highest, 0.0))
    return weighted


def _options(weighted: Floats, shares: Floats) -> Integers:
    """The options in which a share of [0, 1) of the weight ends, (N,); never one without weight."""
    up_to = np.cumsum(weighted, axis=1)
    last = weighted.shape[1] - 1 - (weighted[:, ::-1] > 0).argmax(axis=1)
    options: Integers = np.minimum((up_to <= shares * up_to[:, -1:]).sum(axis=1), last)
    return options
