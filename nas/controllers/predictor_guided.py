"""Search guided by a predictor that is fitted to the scores so far."""

import copy
import math
from collections.abc import Sequence
from random import Random

import numpy as np

from nas.controllers.base import Done, best_architecture, digests, wait_or_done
from nas.controllers.predictor import Encoder, Features, Floats, Predictor, normal_scores
from nas.controllers.random import draw_new
from nas.pareto import cost_of
from nas.trials import History, Record
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace

ROUNDS = 3
"""Generations of the small evolution that looks for the most promising candidate."""
PARENTS = 10
OFFSPRING = 40
DRAWS = 30
AUGMENTATION = 0.05
"""Weight of the weighted sum beside the weighted minimum (Knowles 2006)."""


class PredictorGuided:
    """Candidates from which a predictor expects the largest improvement, none of them twice.

    The loop of BANANAS (White et al. 2021, "BANANAS: Bayesian optimization with neural architectures for neural
    architecture search", algorithm 1) with another predictor: a small ensemble of Gaussian processes over the encoding
    and over the costs that are known without scoring (:mod:`nas.controllers.predictor`). The first ``initial``
    candidates are random. Each later one is the best by expected improvement of a small evolution: random draws, then
    mutations and crossings of the best that were scored, then of the most promising.

    Trials that failed teach nothing and are not proposed again. Beside running trials the predictor takes for their
    scores what it expects. The predictor is fitted anew to the history for every candidate, so nothing is kept; its
    numbers may differ in the last digits from machine to machine, and with them a choice between equals.

    Args:
        space: where to search.
        seed: with the trial's number it decides each draw.
        budget: number of trials, failed ones included.
        initial: random candidates before the predictor is asked; it is not asked before two have scores.
        fitted: scored candidates that the predictor is fitted to at most: the better half of them the best, the other
            the latest. Its time grows with their third power.
        costs: whether parameters and multiply-adds are features, for families that state them.
        features: further numbers of an architecture, known without scoring it; from Python only.

    Raises:
        ConfigError: a number below what it needs.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int,
        initial: int = 10,
        fitted: int = 500,
        costs: bool = True,
        features: Features | None = None,
    ) -> None:
        for name, value, least in (("budget", budget, 1), ("initial", initial, 2), ("fitted", fitted, 2)):
            if value < least:
                raise ConfigError(
                    f"{name}: found {value}; a search guided by a predictor needs at least {least}"
                )
        self.space, self.seed, self.budget = space, seed, budget
        self.initial, self.fitted = initial, fitted
        given = [one for one in (_costs_of(space) if costs else None, features) if one is not None]
        self._encoder = Encoder(
            space, (lambda architecture: [n for one in given for n in one(architecture)]) if given else None
        )
        self._cost: str | None = None

    def minimising(self, cost: str) -> "PredictorGuided":
        """The same controller with a second objective.

        Score and cost are weighed anew for every candidate, and the predictor is fitted to what comes of it (Knowles
        2006, "ParEGO").

        Args:
            cost: name of an attribute of every trial, the smaller the better.
        """
        twin = copy.copy(self)
        twin._cost = cost
        return twin

    def ask(self, history: History) -> Architecture | Done | None:
        """A random candidate, later the most promising one; never one that was tried."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        asked = self._most_promising(history) if len(history) >= self.initial else None
        return asked or draw_new(self.space, self.seed, history) or wait_or_done(history)

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)

    def _most_promising(self, history: History) -> Architecture | None:
        """None where there is too little to learn from, or nothing new in reach."""
        rng = rng_for(self.seed, "guided", len(history))
        scored = {record.digest: record for record in history if self._teaches(record)}
        if len(scored) < 2:
            return None
        records = list(scored.values())
        architectures = [_architecture(record) for record in records]
        values = normal_scores(self._values(records, rng))
        order = np.argsort(-values, kind="stable")
        chosen = _chosen(order, self.fitted)
        predictor = Predictor(
            self._encoder,
            [architectures[place] for place in chosen],
            values[chosen],
            [_architecture(record) for record in history if not record.finished],
        )
        parents = [architectures[place] for place in order[:PARENTS]]
        seen, promise = digests(history), dict[str, float]()
        pool: dict[str, Architecture] = {}
        fresh = [self.space.sample(rng) for _ in range(DRAWS)]
        for _ in range(ROUNDS):
            fresh += [self._child(parents, place, rng) for place in range(OFFSPRING)]
            new = {one.digest: one for one in fresh if one.digest not in seen and one.digest not in pool}
            if new:
                pool |= new
                promise |= zip(new, predictor.improvement(list(new.values())).tolist(), strict=True)
            # Sorted stably: of equals the earlier comes first.
            best = sorted(promise, key=lambda digest: promise[digest], reverse=True)
            parents = [pool[digest] for digest in best[:PARENTS]] or parents
            fresh = []
        return pool[best[0]] if best else None

    def _child(self, parents: Sequence[Architecture], place: int, rng: Random) -> Architecture:
        """Crossing, small and larger mutation in turn; the better a parent, the more often."""
        parent = parents[int(len(parents) * rng.random() ** 2)]
        if place % 3 == 0:
            return self.space.crossover(parent, rng.choice(parents), rng)
        return self.space.mutate(
            parent, rng, None if place % 3 == 1 else min(1.0, 2.0 / len(self.space.genes))
        )

    def _teaches(self, record: Record) -> bool:
        return record.value is not None and (self._cost is None or cost_of(record, self._cost) is not None)

    def _values(self, records: Sequence[Record], rng: Random) -> Floats:
        """What is maximised: the score, or score and cost under weights of this trial, (N,)."""
        scores = np.array([record.value for record in records], dtype=np.float64)
        if self._cost is None:
            return scores
        found = np.array([cost_of(record, self._cost) for record in records], dtype=np.float64)
        weight = rng.random()
        both = np.stack([weight * _within(scores), (1.0 - weight) * _within(-found)])
        return np.asarray(both.min(axis=0) + AUGMENTATION * both.sum(axis=0))


def _costs_of(space: SearchSpace) -> Features | None:
    """Logarithms of parameters and multiply-adds; None for a family that nobody knows."""
    try:
        family_of(space.baseline)
    except InvalidArchitecture:
        return None

    def features(architecture: Architecture) -> Sequence[float]:
        # The size of the image scales multiply-adds of all architectures alike, near enough.
        found = cost(architecture)
        return [math.log(max(found.params, 1)), math.log(max(found.macs, 1))]

    return features


def _chosen(order: "np.ndarray[tuple[int], np.dtype[np.int64]]", most: int) -> list[int]:
    """Places to fit to, ascending: the best, and of the others the latest."""
    best = [int(place) for place in order[: max(most // 2, 1)]]
    others = sorted(set(range(len(order))) - set(best))
    room = most - len(best)
    return sorted([*best, *others[max(len(others) - room, 0) :]])


def _within(values: Floats) -> Floats:
    """Values from 0, the lowest, to 1, the highest."""
    reach = float(np.ptp(values))
    return np.asarray((values - values.min()) / (reach or 1.0), dtype=np.float64)


def _architecture(record: Record) -> Architecture:
    assert isinstance(record.candidate, Architecture), "it proposes whole architectures only"
    return record.candidate
