"""Rank correlations and paired differences against scipy and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas.report.ranking import (
    MINIMUM_NETWORKS,
    kendall_tau,
    paired_difference,
    rho_with_interval,
    spearman_rho,
    student_t_quantile,
    tau_with_interval,
)

tied_lists = st.integers(2, 15).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 4), min_size=n, max_size=n) for _ in range(2)))
)


@given(tied_lists)
def test_tau_and_rho_equal_scipy(lists: tuple[list[int], list[int]]) -> None:
    a, b = lists
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert kendall_tau(a, b) is None
        assert spearman_rho(a, b) is None
        return
    assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    assert spearman_rho(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_tau_by_hand() -> None:
    # Five pairs agree, one disagrees.
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)


def test_interval_holds_the_value_and_is_the_jackknifes() -> None:
    draws = np.random.default_rng(0)
    a = draws.normal(size=20)
    b = np.round(a + draws.normal(size=20))
    first = tau_with_interval(a, b)
    left = [stats.kendalltau(np.delete(a, place), np.delete(b, place)).statistic for place in range(20)]
    error = math.sqrt(19 * np.var(np.arcsin(left)))
    assert first.low == pytest.approx(math.sin(math.asin(first.value or 0.0) - 1.959964 * error), abs=1e-6)
    assert first.warning is None
    assert first.low is not None and first.value is not None and first.high is not None
    assert -1 <= first.low < first.value < first.high <= 1
    rho = rho_with_interval(a, b)
    assert rho.value == pytest.approx(stats.spearmanr(a, b).statistic)


def test_few_networks_warn() -> None:
    few = tau_with_interval(range(MINIMUM_NETWORKS - 1), [1, 0, *range(2, MINIMUM_NETWORKS - 1)])
    assert few.warning is not None and f"only {MINIMUM_NETWORKS - 1} networks" in few.warning
    swapped = [1, 0, *range(2, MINIMUM_NETWORKS)]
    assert tau_with_interval(range(MINIMUM_NETWORKS), swapped).warning is None


def test_without_spread_there_is_no_interval() -> None:
    for other, value in ((range(20), 1.0), (range(20, 0, -1), -1.0)):
        found = tau_with_interval(range(20), other)
        assert (found.value, found.low, found.high) == (value, None, None)
        assert found.warning is not None and "no interval" in found.warning


def test_constant_list_orders_nothing() -> None:
    found = tau_with_interval([1.0] * 12, range(12))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.warning is not None


@pytest.mark.parametrize("a, b", [([1, 2], [1]), ([1, math.nan], [1, 2]), ([[1]], [[1]])])
def test_lists_that_cannot_be_ranked(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError):
        kendall_tau(a, b)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 6, 9, 30, 31, 200])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_t_quantile_equals_scipy(probability: float, degrees: int) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(
        stats.t.ppf(probability, degrees), rel=1e-9
    )


def test_paired_difference_equals_scipy() -> None:
    a = {seed: 0.35 + 0.01 * math.sin(seed) for seed in range(6)}
    b = {seed: 0.34 + 0.01 * math.cos(seed) for seed in range(6)}
    found = paired_difference(a, b | {99: 0.9})
    expected = stats.ttest_rel(list(a.values()), list(b.values())).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.seeds == tuple(range(6))
    assert found.contains_zero == (expected.low <= 0 <= expected.high)


def test_paired_difference_of_one_seed_has_no_interval() -> None:
    found = paired_difference({1: 0.4}, {1: 0.3})
    assert found.mean == pytest.approx(0.1)
    assert (found.standard_error, found.low, found.contains_zero) == (None, None, None)


def test_paired_difference_needs_a_common_seed() -> None:
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference({1: 0.4}, {2: 0.3})
