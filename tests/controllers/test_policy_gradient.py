"""The policy and what moves it: masks, uniform beginnings, exact gradients, and learning."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import chisquare

from nas.controllers.policy import Draws, Floats, Policy
from nas.controllers.policy_gradient import CLIP, EPOCHS, PolicyGradient, _Baseline
from nas.testing import SeparableSpace, ToySpace, run_in_memory, toy_score
from nas.trials import Score
from search_spaces.architecture import Candidate
from search_spaces.catalog import get_space
from search_spaces.errors import CandidateFailed, ConfigError
from search_spaces.gene import Gene
from search_spaces.genes import Choice, Composition, Parents, Permutation
from search_spaces.randomness import rng_for

TOY = ToySpace()


def disturbed(genes: Mapping[str, Gene], *, seed: int = 0, size: float = 1.0) -> Policy:
    """A policy with parameters as if it had learnt something."""
    policy = Policy(genes)
    rng = np.random.default_rng(seed)
    policy.bias += size * rng.normal(size=policy.bias.shape)
    sizes = [options for gene in genes.values() for options in gene.picks]
    pick_of = np.repeat(np.arange(len(sizes)), sizes)
    policy.weights += size * rng.normal(size=policy.weights.shape) * (pick_of[:, None] < pick_of[None, :])
    return policy


def test_an_untrained_policy_is_uniform_over_the_space() -> None:
    draws = Policy(TOY.genes).draw(rng_for(0, "uniform"), 6_500)
    policy = Policy(TOY.genes)
    counts = Counter(TOY.architecture(policy.values(columns)).digest for columns in draws.columns)
    assert len(counts) == TOY.size
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_marginals_of_permutations_and_parents_are_uniform_at_first() -> None:
    """SpineNet's order of ten blocks, and a pair of parents in a window of five."""
    genes: dict[str, Gene] = {"order": Permutation(10), "parents": Parents(5)}
    policy = Policy(genes)
    values = [policy.values(row) for row in policy.draw(rng_for(1, "marginals"), 10_000).columns]
    for place in range(10):
        counts = Counter(value["order"][place] for value in values)  # type: ignore[index]
        assert chisquare([counts[block] for block in range(10)]).pvalue > 0.001
    pairs = Counter(value["parents"] for value in values)
    assert len(pairs) == 10 and chisquare(list(pairs.values())).pvalue > 0.001


def test_masks_hold_whatever_was_learnt() -> None:
    """10 000 draws of SpineNet-49's space; an option that is ruled out may have the largest logit."""
    space = get_space("spinenet.spinenet49")
    policy = disturbed(space.genes, size=3.0)
    different = set()
    for part in range(10):
        draws = policy.draw(rng_for(part, "masks"), 1000)
        assert (np.take_along_axis(draws.prior, draws.columns, axis=1) > 0).all()
        for columns in draws.columns:
            policy.values(columns)  # a permutation or a pair with a repetition would raise
            different.add(columns.tobytes())
        for columns in draws.columns[:100]:
            assert space.architecture(policy.values(columns)) in space
    assert len(different) > 9000


def test_extreme_logits_overflow_nowhere() -> None:
    policy = disturbed(TOY.genes, size=1e4)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        draws = policy.draw(rng_for(0, "extreme"), 50)
        bias, weights = policy.gradient(
            draws, np.ones(50), policy.log_quotients(draws), clip=0.2, entropy=0.1
        )
    assert np.isfinite(bias).all() and np.isfinite(weights).all()
    for columns in draws.columns:
        TOY.check_values(policy.values(columns))


def test_probabilities_are_those_of_the_draws() -> None:
    policy = disturbed(TOY.genes, seed=4)
    draws = policy.draw(rng_for(0, "frequencies"), 10_000)
    chance, log_quotient = policy.probabilities(draws)
    # The first gene's pick has no past, so its chances are the same in every draw.
    counts = np.bincount(draws.columns[:, 0], minlength=3)
    assert chisquare(counts, 10_000 * chance[0, :3]).pvalue > 0.001
    allowed = draws.prior > 0
    np.testing.assert_allclose(chance[allowed], (draws.prior * np.exp(log_quotient))[allowed])
    assert not chance[~allowed].any()
    # The chances of whole values add up to one: those of all draws, each counted once.
    _, first = np.unique(draws.columns, axis=0, return_index=True)
    whole = draws[first.tolist()]
    log = policy.log_quotients(whole) + np.log(np.take_along_axis(whole.prior, whole.columns, axis=1))
    assert 0.9 < np.exp(log.sum(axis=1)).sum() < 1 + 1e-9


def objective(
    policy: Policy, draws: Draws, advantages: Floats, old: Floats, *, clip: float, entropy: float
) -> float:
    """Schulman et al. 2017, equation 7, and the entropy, in plain sums over draws and picks."""
    chance, log_quotient = policy.probabilities(draws)
    total = 0.0
    for row, columns in enumerate(draws.columns):
        for pick, column in enumerate(columns):
            ratio = math.exp(log_quotient[row, column] - old[row, pick])
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            total += min(ratio * advantages[row], clipped * advantages[row])
        for option in np.flatnonzero(draws.prior[row]):
            total -= entropy * chance[row, option] * math.log(chance[row, option] / draws.prior[row, option])
    return total / len(draws.columns)


@pytest.mark.parametrize("clip", [0.2, math.inf])
def test_the_gradient_equals_finite_differences(clip: float) -> None:
    genes: dict[str, Gene] = {
        "kernel": Choice((1, 3, 5)),
        "blocks": Composition(((1, 2, 3),) * 3, total=6),
        "order": Permutation(3),
        "parents": Parents(4, 2),
    }
    sampler, policy = disturbed(genes, seed=1, size=0.5), disturbed(genes, seed=1, size=0.5)
    draws = sampler.draw(rng_for(0, "gradient"), 6)
    old = sampler.log_quotients(draws)
    policy.bias += 0.3 * np.random.default_rng(2).normal(size=policy.bias.shape)
    advantages = np.array([1.0, -0.5, 2.0, -1.5, 0.3, 0.0])
    ratio = np.exp(policy.log_quotients(draws) - old)
    assert ((ratio > 1.2) | (ratio < 0.8)).any() and ((ratio < 1.2) & (ratio > 0.8)).any()
    slopes = policy.gradient(draws, advantages, old, clip=None if clip == math.inf else clip, entropy=0.3)
    step = 1e-6
    for parameters, slope in zip((policy.bias, policy.weights), slopes, strict=True):
        flat, expected = parameters.reshape(-1), slope.reshape(-1)
        used = np.flatnonzero(expected)
        assert len(used) > 10
        for place in used[:: max(1, len(used) // 150)]:
            kept, around = flat[place], []
            for sign in (1, -1):
                flat[place] = kept + sign * step
                around.append(objective(policy, draws, advantages, old, clip=clip, entropy=0.3))
            flat[place] = kept
            assert (around[0] - around[1]) / (2 * step) == pytest.approx(expected[place], abs=2e-8, rel=1e-5)


def test_weights_reach_from_earlier_picks_to_later_ones_only() -> None:
    policy = Policy(TOY.genes)
    for part in range(20):
        draws = policy.draw(rng_for(part, "reach"), 10)
        advantages = np.random.default_rng(part).normal(size=10)
        policy.improve(draws, advantages, learning_rate=1.0, entropy=0.1, epochs=3, clip=0.2)
    sizes = [size for gene in TOY.genes.values() for size in gene.picks]
    pick_of = np.repeat(np.arange(len(sizes)), sizes)
    assert not policy.weights[pick_of[:, None] >= pick_of[None, :]].any()
    assert policy.weights.any()


def test_reinforce_is_the_advantage_times_the_gradient_of_the_log_probability() -> None:
    """One pick of three equal options: (A / N) (chosen - 1/3), summed over the draws (Williams 1992)."""
    policy = Policy({"g": Choice((1, 2, 3))})
    draws = Draws(np.array([[0], [2]]), np.full((2, 3), 1 / 3))
    policy.improve(draws, np.array([2.0, -1.0]), learning_rate=0.5, entropy=0.0)
    wanted = 0.5 / 2 * (2.0 * np.array([2, -1, -1]) / 3 - np.array([-1, -1, 2]) / 3)
    np.testing.assert_allclose(policy.bias, wanted)


def test_one_epoch_of_ppo_without_a_clip_is_reinforce() -> None:
    score = toy_score(TOY)
    histories = [
        run_in_memory(PolicyGradient(TOY, seed=3, budget=120, **options), score, max_trials=120)  # type: ignore[arg-type]
        for options in (
            {"algorithm": "reinforce"},
            {"algorithm": "ppo", "epochs": 1, "clip": math.inf},
            {"algorithm": "ppo"},
        )
    ]
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_the_chance_of_the_best_option_rises(algorithm: str) -> None:
    policy = Policy({"g": Choice(tuple(range(5)))})
    ppo = {"epochs": 4, "clip": 0.2} if algorithm == "ppo" else {}
    seen = [0.2]
    for part in range(40):
        draws = policy.draw(rng_for(part, "best"), 20)
        rewards = (draws.columns[:, 0] == 3).astype(float)
        policy.improve(draws, rewards - 0.5, learning_rate=1.0, entropy=0.0, **ppo)  # type: ignore[arg-type]
        seen.append(float(policy.probabilities(draws)[0][0, 3]))
    assert seen[-1] > 0.95
    assert np.mean(np.diff(seen) > 0) > 0.9


def test_a_pick_learns_to_follow_an_earlier_one() -> None:
    """Only agreement is rewarded: each gene alone says nothing, so a policy of independent picks stays at 1/3."""
    space = SeparableSpace(2, 3)
    policy = Policy(space.genes)
    for part in range(150):
        draws = policy.draw(rng_for(part, "agree"), 20)
        agree = (draws.columns[:, 1] - 3 == draws.columns[:, 0]).astype(float)
        policy.improve(draws, agree - agree.mean(), learning_rate=1.0, entropy=0.3)
    picks = policy.draw(rng_for(0, "agreed"), 1000).columns
    assert (picks[:, 1] - 3 == picks[:, 0]).mean() > 0.8
    assert len(set(picks[:, 0].tolist())) == 3, "the entropy keeps every first option in play"


def test_entropy_brings_a_policy_back_to_uniform() -> None:
    policy = disturbed(TOY.genes, size=2.0)

    def distance() -> float:
        draws = policy.draw(rng_for(0, "distance"), 200)
        chance, log_quotient = policy.probabilities(draws)
        return float((chance * log_quotient).sum() / 200)

    before = distance()
    for part in range(200):
        draws = policy.draw(rng_for(part, "flat"), 20)
        policy.improve(draws, np.zeros(20), learning_rate=1.0, entropy=0.5)
    assert 0 <= distance() < 0.2 * before


def test_the_scale_and_the_offset_of_scores_do_not_matter() -> None:
    score = toy_score(TOY)

    def scaled(candidate: Candidate) -> Score:
        return Score(value=1024.0 * score(candidate).value - 512.0)

    found = [
        [r.digest for r in run_in_memory(PolicyGradient(TOY, seed=1, budget=60), s, max_trials=60)]
        for s in (score, scaled)
    ]
    assert found[0] == found[1]


def test_the_moving_average_in_figures() -> None:
    baseline = _Baseline(0.5)
    np.testing.assert_allclose(baseline.advantages(np.array([1.0, 3.0])), [-1.0, 1.0])
    # The average is still 2; squares 1 and 9 give the batch 5, and with the 1 before 3.
    np.testing.assert_allclose(baseline.advantages(np.array([3.0, 5.0])), np.array([1, 3]) / math.sqrt(3))
    # Now it is 3.
    assert baseline.advantages(np.array([3.0])).tolist() == [0.0]
    assert _Baseline(0.5).advantages(np.array([7.0, 7.0])).tolist() == [0.0, 0.0]


def test_a_settled_policy_leaves_the_rest_to_random_search() -> None:
    space = SeparableSpace(3, 3)
    controller = PolicyGradient(space, seed=0, budget=100, batch=4, learning_rate=30.0, entropy=0.0)
    history = run_in_memory(controller, toy_score(space), max_trials=100)
    assert len(history) == len({record.digest for record in history}) == space.size


def test_candidates_without_a_score_teach_nothing() -> None:
    """Where everything fails the draws stay those of an untrained policy."""

    def failing(candidate: Candidate) -> Score:
        raise CandidateFailed("no")

    controller = PolicyGradient(TOY, seed=2, budget=30, batch=5)
    history = run_in_memory(controller, failing, max_trials=30)
    untrained, drawn = Policy(TOY.genes), []
    for number in range(10):
        draws = untrained.draw(rng_for(2, "policy", number), 5)
        drawn += [TOY.architecture(untrained.values(columns)).digest for columns in draws.columns]
    assert [record.digest for record in history] == list(dict.fromkeys(drawn))[:30]


def test_it_concentrates_on_what_scores_well() -> None:
    """The later half of the trials lies above the first two batches by more than their spread, for every seed."""
    space = SeparableSpace(12, 3)
    score = toy_score(space, seed=7)
    for seed in range(3):
        history = run_in_memory(PolicyGradient(space, seed=seed, budget=200), score, max_trials=200)
        values = [record.value for record in history]
        assert np.mean(values[100:]) > np.mean(values[:20]) + np.std(values[:20])  # type: ignore[arg-type]


def test_defaults_of_ppo() -> None:
    ppo = PolicyGradient(TOY, seed=0, budget=1, algorithm="ppo")
    assert (ppo.epochs, ppo.clip) == (EPOCHS, CLIP)
    reinforce = PolicyGradient(TOY, seed=0, budget=1)
    assert (reinforce.epochs, reinforce.clip) == (1, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "a2c"},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"entropy": -0.1},
        {"decay": 1.0},
        {"epochs": 3},
        {"clip": 0.1},
        {"algorithm": "ppo", "epochs": 0},
        {"algorithm": "ppo", "clip": 0.0},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    name, value = list(wrong.items())[-1]
    with pytest.raises(ConfigError, match=f"^{name}: found {value!r}|^{name}: found {value}"):
        PolicyGradient(TOY, seed=0, budget=10, **wrong)  # type: ignore[arg-type]
