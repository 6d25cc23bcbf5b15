"""How well one list of numbers orders networks as another does, and how sure one can be of it.

Kendall's tau-b and Spearman's rho with jackknife intervals over networks, and the paired difference of two networks
trained under the same seeds with Student's t interval.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

MINIMUM_NETWORKS = 13
"""Below this many networks an interval of a rank correlation comes with a warning; a choice of ours."""
_NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """A rank correlation with its 95 % interval.

    ``value`` is ``None`` where one of the lists is constant: a constant orders nothing. ``low`` and ``high``
    are ``None`` where no interval can be had. ``warning`` says why not to lean on the number.
    """

    value: float | None
    low: float | None
    high: float | None
    networks: int
    warning: str | None


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean of ``a - b`` over the seeds both have; without a second seed there is no error and no interval."""

    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

    @property
    def contains_zero(self) -> bool | None:
        """Whether the 95 % interval contains zero; ``None`` without an interval."""
        if self.low is None or self.high is None:
            return None
        return self.low <= 0.0 <= self.high


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b (Kendall 1945), ties counted in neither direction.

    Returns:
        A number in [-1, 1], or ``None`` where ``a`` or ``b`` is constant.
    """
    x, y = paired(a, b)
    return _tau(_signs(x), _signs(y))


def mutual_tau(rows: Sequence[Sequence[float]]) -> float | None:
    """Kendall's tau-b between two of several orders of the same things, a mean over all pairs that have one.

    Returns:
        ``None`` where no pair has: fewer than two rows, or all but one of them constant.
    """
    taus = [kendall_tau(one, other) for one, other in combinations(rows, 2)]
    known = [tau for tau in taus if tau is not None]
    return fmean(known) if known else None


def spearman_rho(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho: Pearson's correlation of the ranks, ties sharing their average rank.

    Returns:
        A number in [-1, 1], or ``None`` where ``a`` or ``b`` is constant.
    """
    x, y = paired(a, b)
    return rho(x, y)


def tau_with_interval(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """Kendall's tau-b with its interval over networks; see :func:`correlation`.

    Args:
        a: one number a network.
        b: another number of the same networks, in the same order.
    """
    x, y = paired(a, b)
    signs_x, signs_y = _signs(x), _signs(y)
    agreeing = (signs_x * signs_y).sum(axis=1)
    untied = np.abs(signs_x).sum(axis=1), np.abs(signs_y).sum(axis=1)
    # Every pair stands in the sums twice, so a network that goes takes its row with it twice.
    left = [
        _of_sums(agreeing.sum() - 2 * own, untied[0].sum() - 2 * in_x, untied[1].sum() - 2 * in_y)
        for own, in_x, in_y in zip(agreeing, *untied, strict=True)
    ]
    return _jackknifed(_tau(signs_x, signs_y), left)


def rho_with_interval(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """Spearman's rho with its interval; arguments as in :func:`tau_with_interval`."""
    x, y = paired(a, b)
    return correlation(lambda chosen: rho(x[chosen], y[chosen]), len(x))


def paired_difference(a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float]) -> PairedDifference:
    """Mean, standard error and 95 % interval (Student's t) of ``a - b`` over the seeds that both have.

    Raises:
        ValueError: no seed in common.
    """
    seeds = tuple(sorted(set(a_by_seed) & set(b_by_seed)))
    if not seeds:
        raise ValueError(
            f"no seed in common: {sorted(a_by_seed)} and {sorted(b_by_seed)}; train both under the same seeds"
        )
    differences = np.array([a_by_seed[seed] - b_by_seed[seed] for seed in seeds], dtype=np.float64)
    mean = float(differences.mean())
    if len(seeds) < 2:
        return PairedDifference(mean=mean, standard_error=None, low=None, high=None, seeds=seeds)
    error = float(differences.std(ddof=1)) / math.sqrt(len(seeds))
    reach = student_t_quantile(0.975, len(seeds) - 1) * error
    return PairedDifference(mean=mean, standard_error=error, low=mean - reach, high=mean + reach, seeds=seeds)


def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for whole degrees of freedom, by bisection of the exact distribution.

    Args:
        probability: in (0.5, 1).
        degrees: of freedom, 1 or more.
    """
    if not 0.5 < probability < 1.0 or degrees < 1:
        raise ValueError(f"needs 0.5 < probability < 1 and degrees >= 1; found {probability} and {degrees}")
    low, high = 0.0, 1.0
    while _t_distribution(high, degrees) < probability:
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = (low + high) / 2.0
        if _t_distribution(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _t_distribution(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0 (Abramowitz and Stegun 26.7.3 and 26.7.4, a finite sum for whole degrees)."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    term = cosine if degrees % 2 else 1.0
    total = 0.0
    for k in range(3 if degrees % 2 else 2, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    within = 2.0 / math.pi * (theta + sine * total) if degrees % 2 else sine * total
    return 0.5 + within / 2.0


def paired(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    """Two lists as arrays.

    Raises:
        ValueError: unequal lengths, NaN or infinity.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"needs two lists of equal length; found shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("ranks of NaN or infinity mean nothing; leave failed networks out")
    return x, y


def _signs(values: Floats) -> Floats:
    """(n,) -> (n, n): whether each value is above, below or equal to each other."""
    return np.sign(values[:, None] - values[None, :])


def _tau(signs_x: Floats, signs_y: Floats) -> float | None:
    return _of_sums((signs_x * signs_y).sum(), np.abs(signs_x).sum(), np.abs(signs_y).sum())


def _of_sums(agreeing: float, untied_x: float, untied_y: float) -> float | None:
    untied = math.sqrt(float(untied_x) * float(untied_y))
    return float(agreeing) / untied if untied else None


def rho(x: Floats, y: Floats) -> float | None:
    """Spearman's rho of two arrays, or None where one is constant."""
    ranks_x, ranks_y = ranks(x), ranks(y)
    ranks_x, ranks_y = ranks_x - ranks_x.mean(), ranks_y - ranks_y.mean()
    spread = math.sqrt(float((ranks_x**2).sum()) * float((ranks_y**2).sum()))
    return float((ranks_x * ranks_y).sum()) / spread if spread else None


def ranks(values: Floats) -> Floats:
    """From 1 for the smallest; ties share their average rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    average: Floats = (last - (counts - 1) / 2.0).astype(np.float64)
    return average[inverse]


CONSTANT = "all values are equal: nothing is ordered"


def correlation(
    statistic: Callable[[Places], float | None],
    networks: int,
    *,
    worth: float | None = None,
    nothing: str = CONSTANT,
) -> RankCorrelation:
    """A correlation over networks with its 95 % interval by the jackknife on the arcsine scale.

    Each network is left out once; the arcsine makes the spread nearly the same for weak and strong correlations, and
    the interval never leaves [-1, 1].

    Args:
        statistic: of the networks at these places, in [-1, 1]; None where they say nothing.
        networks: how many there are.
        worth: of how many equally weighted ones they are worth, where some weigh more. The spread between so few is
            not well known, so the interval is Student's t then.
        nothing: why they say nothing, where they do not.
    """
    every = np.arange(networks)
    left_out = [statistic(np.delete(every, place)) for place in every]
    reach = _NORMAL if worth is None else student_t_quantile(0.975, max(round(worth) - 1, 1))
    return _jackknifed(statistic(every), left_out, nothing, reach)


def _jackknifed(
    value: float | None,
    left_out: Sequence[float | None],
    nothing: str = CONSTANT,
    reach: float = _NORMAL,
) -> RankCorrelation:
    """From the value of all networks and those without each of them."""
    networks = len(left_out)
    if value is None:
        return RankCorrelation(
            value=None,
            low=None,
            high=None,
            networks=networks,
            warning=nothing,
        )
    left = np.arcsin(np.clip([one for one in left_out if one is not None], -1.0, 1.0))
    low = high = warning = None
    error = math.sqrt(max(len(left) - 1, 0) * float(left.var())) if len(left) else 0.0
    # Lists that agree wholly, or nearly without spread, do so without any of their networks.
    if len(left) > 2 and error > 1e-9:
        middle = math.asin(max(-1.0, min(1.0, value)))
        low = math.sin(max(middle - reach * error, -math.pi / 2))
        high = math.sin(min(middle + reach * error, math.pi / 2))
    else:
        warning = "no interval: the value is the same without any one of the networks"
    if networks < MINIMUM_NETWORKS and low is not None:
        warning = f"only {networks} networks: under {MINIMUM_NETWORKS} the interval may be too narrow"
    return RankCorrelation(value=value, low=low, high=high, networks=networks, warning=warning)
