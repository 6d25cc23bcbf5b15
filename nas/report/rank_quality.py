"""How good an order of networks is: everything that is known to mislead when Kendall's tau stands alone.

A proxy with a fair tau over all networks may order the best of them at random, or know nothing but their size. So each
proxy is described by several numbers with intervals, beside those of rivals that cost nothing, and below a ceiling: the
tau that a proxy without any error would reach against a truth that is itself a mean over few noisy trainings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.report.ranking import (
    MINIMUM_NETWORKS,
    Floats,
    Places,
    RankCorrelation,
    correlation,
    kendall_tau,
    paired,
    ranks,
    rho_with_interval,
    tau_with_interval,
)

TOP_SHARE = 0.1
"""The best part of the networks, among which a search has to tell."""
K = 3
"""Networks that a person would train to completion."""


@dataclass(frozen=True, kw_only=True)
class RankQuality:
    """What one proxy's order of networks is worth; 95 % intervals over networks, of correlations by the jackknife, of
    recall and regret by the bootstrap.

    Args:
        tau: Kendall's tau-b with the truth.
        weighted: the same, each pair weighted by the hyperbolic rank of its networks in the truth (Vigna 2015).
        rho: Spearman's.
        partial: Spearman's, after whatever parameters and MACs explain linearly in ranks was taken from both.
        top: tau-b inside the best tenth by truth.
        recall: how many of the truth's best ``k`` are among the proxy's best ``k``, as a share.
        regret: AP points between the best network and the best of the proxy's best ``k``.
        k: of recall and regret.
    """

    tau: RankCorrelation
    weighted: RankCorrelation
    rho: RankCorrelation
    partial: RankCorrelation
    top: RankCorrelation
    recall: RankCorrelation
    regret: RankCorrelation
    k: int


def rank_quality(
    proxy: Sequence[float],
    truth: Sequence[float],
    sizes: Sequence[Sequence[float]] = (),
    *,
    k: int = K,
    seed: int = 0,
    resamples: int = 2000,
) -> RankQuality:
    """Compare a proxy's values with the truth, network by network.

    Args:
        proxy: one number a network, larger is better.
        truth: AP in percent of the same networks, in the same order.
        sizes: parameters, MACs and the like, a list each; for the partial correlation.
        k: how many networks a person would train of those that the proxy puts first.
        seed: of the bootstrap.
        resamples: of the bootstrap; draws of as many networks with replacement.

    Raises:
        ValueError: lists of unequal lengths, NaN or infinity, or ``k`` below 1 or above the number of networks.
    """
    x, y = paired(proxy, truth)
    count = len(x)
    if not 1 <= k <= count:
        raise ValueError(f"k: found {k}; allowed is 1 to {count}, the number of networks")
    beside = [paired(one, truth)[0] for one in sizes]
    best = np.argsort(-y, kind="stable")[: max(round(TOP_SHARE * count), 2)]
    return RankQuality(
        tau=tau_with_interval(proxy, truth),
        weighted=weighted_with_interval(x, y),
        rho=rho_with_interval(proxy, truth),
        partial=partial_with_interval(x, y, beside),
        top=tau_with_interval(x[best].tolist(), y[best].tolist()),
        recall=recall_with_interval(x, y, k, seed=seed, resamples=resamples),
        regret=regret_with_interval(x, y, k, seed=seed, resamples=resamples),
        k=k,
    )


def weighted_with_interval(proxy: Floats, truth: Floats) -> RankCorrelation:
    """:func:`weighted_tau` with its jackknife interval, Student's t of as many networks as the weights are worth."""
    count = len(truth)
    return correlation(lambda chosen: weighted_tau(proxy[chosen], truth[chosen]), count, worth=_worth(count))


def partial_with_interval(proxy: Floats, truth: Floats, given: Sequence[Floats]) -> RankCorrelation:
    """:func:`partial_rho` with its jackknife interval."""
    return correlation(
        lambda chosen: partial_rho(proxy[chosen], truth[chosen], [one[chosen] for one in given]),
        len(truth),
        nothing="nothing is left of one of the lists once size has explained what it can",
    )


def recall_with_interval(
    proxy: Floats, truth: Floats, k: int, *, seed: int = 0, resamples: int = 2000
) -> RankCorrelation:
    """:func:`top_recall` with its bootstrap interval."""
    return _bootstrapped(
        lambda chosen: top_recall(proxy[chosen], truth[chosen], k), len(truth), seed, resamples
    )


def regret_with_interval(
    proxy: Floats, truth: Floats, k: int, *, seed: int = 0, resamples: int = 2000
) -> RankCorrelation:
    """:func:`regret_at` with its bootstrap interval."""
    return _bootstrapped(
        lambda chosen: regret_at(proxy[chosen], truth[chosen], k), len(truth), seed, resamples
    )


def _bootstrapped(
    statistic: Callable[[Places], float], networks: int, seed: int, resamples: int
) -> RankCorrelation:
    """With a percentile interval; the jackknife fails where a statistic moves in steps."""
    generator = np.random.default_rng(seed)
    found = [statistic(generator.integers(0, networks, networks)) for _ in range(resamples)]
    low: float | None
    high: float | None
    low, high = (float(one) for one in np.quantile(found, [0.025, 0.975]))
    warning = None
    # What lots between equals give on average is rounded.
    if high - low <= 1e-9:
        low = high = None
        warning = "no interval: the value is the same in nearly every draw of the networks"
    elif networks < MINIMUM_NETWORKS:
        warning = f"only {networks} networks, of {MINIMUM_NETWORKS} that an interval needs"
    return RankCorrelation(
        value=statistic(np.arange(networks)),
        low=low,
        high=high,
        networks=networks,
        warning=warning,
    )


def weighted_tau(proxy: Sequence[float] | Floats, truth: Sequence[float] | Floats) -> float | None:
    """Kendall's tau with additive hyperbolic weights (Vigna 2015, section 4): the top counts more.

    A pair's weight is 1 / (r + 1) + 1 / (s + 1) for the ranks r and s of its networks in the truth, 0 the best.

    Returns:
        A number in [-1, 1], or ``None`` where one of the lists is constant.
    """
    x, y = paired(proxy, truth)
    order = np.empty(len(y))
    order[np.argsort(-y, kind="stable")] = np.arange(len(y))
    weights = _pair_weights(order)
    above_x, above_y = np.sign(x[:, None] - x[None, :]), np.sign(y[:, None] - y[None, :])
    untied = math.sqrt(float((weights * abs(above_x)).sum()) * float((weights * abs(above_y)).sum()))
    return float((weights * above_x * above_y).sum()) / untied if untied else None


def _pair_weights(order: Floats) -> Floats:
    """Of every pair, (n,) ranks from 0 -> (n, n); no network makes a pair with itself."""
    each = 1.0 / (order + 1.0)
    weights: Floats = each[:, None] + each[None, :]
    np.fill_diagonal(weights, 0.0)
    return weights


def _worth(networks: int) -> float:
    """How many equally weighted networks the weighted tau of so many is worth (Kish 1965, section 11.7)."""
    own = _pair_weights(np.arange(networks, dtype=np.float64)).sum(axis=1)
    return float(own.sum() ** 2 / (own**2).sum()) if networks > 1 else 1.0


def partial_rho(
    proxy: Sequence[float] | Floats,
    truth: Sequence[float] | Floats,
    given: Sequence[Sequence[float] | Floats],
) -> float | None:
    """Spearman's rho of what is left of two lists when the ranks of others explain all they can.

    Returns:
        A number in [-1, 1]; ``None`` where nothing is left of one of the lists, or with too few networks to say.
    """
    x, y = paired(proxy, truth)
    known = np.stack([np.ones(len(x)), *(ranks(np.asarray(one, dtype=np.float64)) for one in given)], axis=1)
    if len(x) <= known.shape[1] + 1:
        return None
    left = []
    for values in (ranks(x), ranks(y)):
        explained, *_ = np.linalg.lstsq(known, values, rcond=None)
        left.append(values - known @ explained)
    # What rounding leaves of a list that is explained whole.
    smallest = 1e-9 * len(x)
    if min(float(np.abs(one).max()) for one in left) < smallest:
        return None
    spread = math.sqrt(float((left[0] ** 2).sum()) * float((left[1] ** 2).sum()))
    return float((left[0] * left[1]).sum()) / spread


def top_recall(proxy: Sequence[float] | Floats, truth: Sequence[float] | Floats, k: int) -> float:
    """Share of the truth's best ``k`` that are among the proxy's best ``k``, expected when lots decide between ties."""
    x, y = paired(proxy, truth)
    return float((_chances(x, k) * _chances(y, k)).sum()) / min(k, len(x))


def regret_at(proxy: Sequence[float] | Floats, truth: Sequence[float] | Floats, k: int) -> float:
    """How much the best of the proxy's first ``k`` lacks to the best of all, in the unit of the truth.

    Where lots decide which of equals are among the first, its expectation.
    """
    x, y = paired(proxy, truth)
    chances = _chances(x, k)
    sure, tied = y[chances == 1.0], np.sort(y[(chances > 0.0) & (chances < 1.0)])[::-1]
    best_sure = float(sure.max()) if len(sure) else -math.inf
    room = min(k, len(x)) - len(sure)
    if not len(tied):
        return float(y.max()) - best_sure
    # The best of those drawn is the one at this place when it is drawn and none before it is.
    ways = math.comb(len(tied), room)
    found = sum(
        math.comb(len(tied) - 1 - place, room - 1) / ways * max(float(value), best_sure)
        for place, value in enumerate(tied)
    )
    return float(y.max()) - found


def _chances(values: Floats, k: int) -> Floats:
    """Of each to be among the ``k`` largest when lots decide between equals."""
    if k >= len(values):
        return np.ones(len(values))
    limit = np.sort(values)[::-1][k - 1]
    above, equal = values > limit, values == limit
    return np.asarray(above + equal * ((k - above.sum()) / equal.sum()), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the noise of the truth allows.

    Args:
        tau: mean tau-b of a proxy without error against the truth, simulated.
        low: the worst of a hundred simulated truths gives about this (1 %).
        seed_to_seed: mean tau-b between two seeds of the truth; None with one seed.
        noise: standard deviation of one training's AP around its network's mean, in points.
        spread: standard deviation of the networks' own APs, the noise of their means taken out.
        seeds: of the truth.
    """

    tau: float | None
    low: float | None
    seed_to_seed: float | None
    noise: float | None
    spread: float | None
    seeds: int


def ceiling(scores: Sequence[Mapping[int, float]], *, seed: int = 0, draws: int = 2000) -> Ceiling:
    """The highest tau that can be expected of any proxy, from trainings of the same networks under several seeds.

    The networks' true APs are taken to lie like their means, drawn together until the variance that noise adds to the
    means is gone; truths are then simulated from them with normal noise of the measured size.

    Args:
        scores: seed -> AP of each network; the same seeds everywhere.
        seed: of the simulation.
        draws: simulated truths.
    """
    if not scores:
        return Ceiling(tau=None, low=None, seed_to_seed=None, noise=None, spread=None, seeds=0)
    seeds = sorted(set.intersection(*(set(one) for one in scores)))
    table = np.array([[one[number] for number in seeds] for one in scores], dtype=np.float64)
    if len(seeds) < 2 or len(scores) < 2:
        return Ceiling(tau=None, low=None, seed_to_seed=None, noise=None, spread=None, seeds=len(seeds))
    pairs = [
        kendall_tau(table[:, first].tolist(), table[:, second].tolist())
        for first in range(len(seeds))
        for second in range(first)
    ]
    # What a seed does to all networks alike changes no order.
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    freedom = (len(scores) - 1) * (len(seeds) - 1)
    noise = math.sqrt(float((residuals**2).sum()) / freedom)
    means = table.mean(axis=1)
    observed = float(means.var(ddof=1))
    own = max(observed - noise**2 / len(seeds), 0.0)
    centres = means.mean() + math.sqrt(own / observed if observed else 0.0) * (means - means.mean())
    generator = np.random.default_rng(seed)
    found = [
        kendall_tau(
            centres.tolist(),
            (centres + generator.normal(0.0, noise / math.sqrt(len(seeds)), len(centres))).tolist(),
        )
        for _ in range(draws)
    ]
    taus = np.array([one for one in found if one is not None], dtype=np.float64)
    said = [one for one in pairs if one is not None]
    return Ceiling(
        tau=float(taus.mean()) if len(taus) else None,
        low=float(np.quantile(taus, 0.01)) if len(taus) else None,
        seed_to_seed=float(np.mean(said)) if said else None,
        noise=noise,
        spread=math.sqrt(own),
        seeds=len(seeds),
    )


def mean_rank(lists: Sequence[Sequence[float]]) -> list[float]:
    """The simplest combination of proxies: the mean of a network's ranks in all of them, larger is better."""
    all_ranks = [ranks(np.asarray(one, dtype=np.float64)) for one in lists]
    return [float(value) for value in np.mean(all_ranks, axis=0)]
