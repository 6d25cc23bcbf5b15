"""A predictor of scores: Gaussian processes over the encoding and over cheap features, averaged by their evidence.

A member of the ensemble is a Gaussian process whose kernel falls with the number of parameters in which two
architectures differ, mixed with one over their features (costs, say). How fast it falls, how large the share of the
features is and how much of a score is noise is on a small grid; the members that explain the scores best are kept and
weighted by their marginal likelihood (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters
2 and 5). In numpy, a few milliseconds for a hundred scores.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Architecture
from search_spaces.gene import Categorical
from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
Features = Callable[[Architecture], Sequence[float]]
"""What is known of an architecture without scoring it: as many numbers for every one."""

DECAYS = (0.5, 2.0, 8.0)
"""Two architectures that differ in every parameter correlate by exp(-decay): slow is nearly additive in the genes."""
NOISES = (0.01, 0.1)
"""Variance of the noise, as a share of the scores' own."""
SHARES = (0.0, 0.5, 0.9)
"""Of the kernel over the features in the whole."""
MEMBERS = 5
_NORMAL = NormalDist()


class Encoder:
    """Architectures as rows of numbers, whose squared distance counts the parameters that differ.

    A categorical parameter is one-hot, divided by the root of two; an integer or real one is its place in its range,
    from 0 to 1.

    Args:
        space: of the architectures.
        features: further numbers of each; none when left out.
    """

    def __init__(self, space: SearchSpace, features: Features | None = None) -> None:
        self._space, self._features = space, features
        self._parameters = dict(space.parameters)
        self._rows: dict[str, tuple[Floats, Floats]] = {}  # by digest; a cache

    def __call__(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """The encoding, (N, D), scaled so that no squared distance is above 1; and the features, (N, F)."""
        rows = [self._row(one) for one in architectures]
        return np.array([row for row, _ in rows]), np.array([features for _, features in rows])

    def _row(self, architecture: Architecture) -> tuple[Floats, Floats]:
        known = self._rows.get(architecture.digest)
        if known is None:
            known = (
                self._encoded(architecture),
                np.array(self._features(architecture) if self._features else (), dtype=np.float64),
            )
            self._rows[architecture.digest] = known
        return known

    def _encoded(self, architecture: Architecture) -> Floats:
        row: list[float] = []
        for name, value in self._space.encode(architecture).items():
            parameter = self._parameters[name]
            if isinstance(parameter, Categorical):
                row += [math.sqrt(0.5) * (choice == value) for choice in parameter.choices]
            else:
                reach = parameter.high - parameter.low
                row.append((float(value) - parameter.low) / reach if reach else 0.0)
        return np.array(row) / math.sqrt(len(self._parameters))


def normal_scores(values: Floats) -> Floats:
    """Values replaced by the normal quantiles of their ranks, ties sharing their mean rank, (N,).

    The order alone counts, so a few networks that hardly learned cannot flatten the differences among the good ones.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    shares = (np.cumsum(count) - 0.5 * count) / len(values)
    return np.array([_NORMAL.inv_cdf(share) for share in shares])[place]


@dataclass(frozen=True)
class _Member:
    """One Gaussian process.

    Args:
        decay: see :data:`DECAYS`.
        share: see :data:`SHARES`.
        noise: see :data:`NOISES`.
        evidence: logarithm of the marginal likelihood, up to a constant that all members have in common.
        scale: of the variance.
        whitening: inverse of the Cholesky factor of the kernel with noise, (N, N).
        whitened: the values times it, (N,).
    """

    decay: float
    share: float
    noise: float
    evidence: float
    scale: float
    whitening: Floats
    whitened: Floats


class Predictor:
    """What architectures may score, from those that were scored.

    Args:
        encoder: of the space.
        architectures: N of them, at least one.
        values: their scores, (N,); see :func:`normal_scores`.
        running: architectures whose scores are still to come. Each counts as if it scored what is expected of it, so
            nothing is expected to be learned there again (Ginsbourger et al. 2010, "Kriging is well-suited to
            parallelize optimization", section 4.2).
    """

    def __init__(
        self,
        encoder: Encoder,
        architectures: Sequence[Architecture],
        values: Floats,
        running: Sequence[Architecture] = (),
    ) -> None:
        self._encoder, self._best = encoder, float(values.max())
        self._encoded, features = encoder(architectures)
        self._mean, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0.0, spread, 1.0)
        self._features = self._standard(features)
        distances = self._distances(self._encoded, self._features)
        shares = SHARES if features.shape[1] else (0.0,)
        members = []
        for decay, share in product(DECAYS, shares):
            kernel = _kernel(distances, decay, share)
            members += [
                member for noise in NOISES if (member := _member(kernel, decay, share, noise, values))
            ]
        members.sort(key=lambda member: member.evidence, reverse=True)
        self._members = [_ready(member) for member in members[:MEMBERS]]
        weights = np.array([math.exp(one.evidence - members[0].evidence) for one in self._members])
        self._weights = weights / weights.sum()
        if running:
            self._believe(running, values)

    def _believe(self, running: Sequence[Architecture], values: Floats) -> None:
        expected = [mean for mean, _ in self._predictions(running)]
        encoded, features = self._encoder(running)
        self._encoded = np.concatenate([self._encoded, encoded])
        self._features = np.concatenate([self._features, self._standard(features)])
        distances = self._distances(self._encoded, self._features)
        believed = []
        for member, means in zip(self._members, expected, strict=True):
            kernel = _kernel(distances, member.decay, member.share)
            again = _member(kernel, member.decay, member.share, member.noise, np.concatenate([values, means]))
            # The scale is that of what was scored: beliefs are no evidence.
            believed.append(_ready(again, member.scale) if again else None)
        kept = [place for place, member in enumerate(believed) if member is not None]
        self._members = [member for member in believed if member is not None]
        self._weights = self._weights[kept] / self._weights[kept].sum()

    def improvement(self, architectures: Sequence[Architecture]) -> Floats:
        """Expected improvement on the best value, (N,) (Jones et al. 1998, "Efficient global optimization")."""
        total = np.zeros(len(architectures))
        for weight, (mean, deviation) in zip(self._weights, self._predictions(architectures), strict=True):
            z = (mean - self._best) / deviation
            below = np.array([_NORMAL.cdf(one) for one in z])
            density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
            total += weight * deviation * (z * below + density)
        return total

    def mean(self, architectures: Sequence[Architecture]) -> Floats:
        """Expected values, (N,)."""
        means = np.array([mean for mean, _ in self._predictions(architectures)])
        return np.asarray(self._weights @ means)

    def _predictions(self, architectures: Sequence[Architecture]) -> list[tuple[Floats, Floats]]:
        """Mean and standard deviation, (N,) each, of every member."""
        encoded, features = self._encoder(architectures)
        distances = self._distances(encoded, self._standard(features))
        found = []
        for member in self._members:
            projected = member.whitening @ _kernel(distances, member.decay, member.share)
            variance = member.scale * (2.0 - (projected**2).sum(axis=0))
            found.append((projected.T @ member.whitened, np.sqrt(np.maximum(variance, 1e-10))))
        return found

    def _standard(self, features: Floats) -> Floats:
        return np.asarray((features - self._mean) / self._spread, dtype=np.float64)

    def _distances(self, encoded: Floats, features: Floats) -> tuple[Floats, Floats]:
        """Squared distances to what is known, (known, N), over the encoding and over the features."""
        return _squared(self._encoded, encoded), _squared(self._features, features) / max(
            features.shape[1], 1
        )


def _squared(a: Floats, b: Floats) -> Floats:
    lengths = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None]
    return np.asarray(np.maximum(lengths - 2.0 * a @ b.T, 0.0), dtype=np.float64)


def _kernel(distances: tuple[Floats, Floats], decay: float, share: float) -> Floats:
    """One for an unknown mean, plus at most one."""
    kernel = (1.0 - share) * np.exp(-decay * distances[0])
    if share:
        kernel += share * np.exp(-0.5 * distances[1])
    return np.asarray(kernel + 1.0)


def _member(kernel: Floats, decay: float, share: float, noise: float, values: Floats) -> _Member | None:
    """A member whose whitening is still the Cholesky factor itself; None where there is none in double precision."""
    try:
        factor = np.asarray(np.linalg.cholesky(kernel + noise * np.eye(len(kernel))), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    whitened = np.asarray(np.linalg.solve(factor, values), dtype=np.float64)
    scale = max(float(whitened @ whitened) / len(values), 1e-12)
    evidence = -0.5 * len(values) * math.log(scale) - float(np.log(np.diag(factor)).sum())
    return _Member(decay, share, noise, evidence, scale, factor, whitened)


def _ready(member: _Member, scale: float | None = None) -> _Member:
    """The factor inverted, for the few members that are kept."""
    return _Member(
        member.decay,
        member.share,
        member.noise,
        member.evidence,
        member.scale if scale is None else scale,
        np.asarray(np.linalg.inv(member.whitening), dtype=np.float64),
        member.whitened,
    )
