"""The predictor against closed forms, and what the search that it guides proposes, waits for and leaves out."""

import math
from dataclasses import replace
from statistics import NormalDist, fmean

import numpy as np
import pytest

from nas.controllers.catalog import make_controller
from nas.controllers.predictor import Encoder, Predictor, normal_scores
from nas.controllers.predictor_guided import PredictorGuided, _chosen
from nas.methods.searching import Beside, TwoObjectives
from nas.pareto import front_of
from nas.report.ranking import kendall_tau
from nas.testing import SeparableSpace, ToySpace, extend, run_in_memory, toy_score
from nas.trials import History, Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.catalog import get_space
from search_spaces.cost import cost
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for

SPACE = SeparableSpace(6, 3)


def drawn(space: ToySpace | SeparableSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = rng_for(seed, "test")
    return [space.sample(rng) for _ in range(count)]


def values_of(space: ToySpace | SeparableSpace, architectures: list[Architecture]) -> list[float]:
    score = toy_score(space)
    return [score(one).value for one in architectures]


def test_the_distance_of_two_encodings_counts_the_parameters_that_differ() -> None:
    one = SPACE.architecture(dict.fromkeys(SPACE.genes, 1))
    other = SPACE.architecture({**dict.fromkeys(SPACE.genes, 1), "g2": 3, "g4": 2})
    rows, features = Encoder(SPACE, lambda architecture: [7.0])([one, other])
    assert ((rows[0] - rows[1]) ** 2).sum() == pytest.approx(2 / 6)
    assert features.tolist() == [[7.0], [7.0]]
    rows, features = Encoder(ToySpace())(list(ToySpace().enumerate()))
    assert features.shape == (648, 0)
    assert ((rows[:, None] - rows[None]) ** 2).sum(axis=2).max() <= 1.0 + 1e-12


def test_normal_scores_are_quantiles_of_ranks() -> None:
    quantile = NormalDist().inv_cdf
    found = normal_scores(np.array([3.0, -900.0, 3.0, 5.0]))
    assert found == pytest.approx([0.0, quantile(1 / 8), 0.0, quantile(7 / 8)])
    assert normal_scores(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("space", [SPACE, ToySpace()], ids=["categorical", "every kind of gene"])
def test_it_orders_what_it_has_not_seen(space: ToySpace | SeparableSpace) -> None:
    known, others = drawn(space, 60), drawn(space, 60, seed=1)
    predictor = Predictor(Encoder(space), known, normal_scores(np.array(values_of(space, known))))
    tau = kendall_tau(predictor.mean(others).tolist(), values_of(space, others))
    assert tau is not None and tau > 0.7


def test_features_say_what_the_encoding_cannot() -> None:
    """A sum of twelve genes after fifteen scores, given as a feature or not."""
    space = SeparableSpace(12, 3)
    known, others = drawn(space, 15), drawn(space, 60, seed=1)

    def total(architecture: Architecture) -> list[float]:
        return [float(sum(architecture.genes["values"]))]  # type: ignore[arg-type]

    values = np.array([total(one)[0] for one in known])
    truth = [total(one)[0] for one in others]
    taus = [
        kendall_tau(Predictor(Encoder(space, features), known, values).mean(others).tolist(), truth)
        for features in (total, None)
    ]
    assert taus[0] is not None and taus[1] is not None
    assert taus[0] > 0.95 > 0.8 > taus[1]


def test_expected_improvement_is_that_of_a_normal_distribution() -> None:
    known = drawn(SPACE, 20)
    values = normal_scores(np.array(values_of(SPACE, known)))
    predictor = Predictor(Encoder(SPACE), known, values)
    others = drawn(SPACE, 5, seed=2)
    draws = np.random.default_rng(0).standard_normal(200_000)
    simulated = np.zeros(5)
    for weight, (mean, deviation) in zip(predictor._weights, predictor._predictions(others), strict=True):
        outcomes = mean[:, None] + deviation[:, None] * draws
        simulated += weight * np.maximum(outcomes - values.max(), 0.0).mean(axis=1)
    assert predictor.improvement(others) == pytest.approx(simulated, rel=0.05, abs=2e-4)
    assert predictor._weights.sum() == pytest.approx(1.0)


def test_a_belief_moves_no_expectation_and_leaves_less_to_learn() -> None:
    known = drawn(SPACE, 20)
    values = normal_scores(np.array(values_of(SPACE, known)))
    running, others = drawn(SPACE, 2, seed=3), drawn(SPACE, 30, seed=4)
    without = Predictor(Encoder(SPACE), known, values)
    beside = Predictor(Encoder(SPACE), known, values, running)
    assert beside.mean(others) == pytest.approx(without.mean(others), abs=1e-8)
    for (_, before), (_, after) in zip(
        without._predictions([*running, *others]), beside._predictions([*running, *others]), strict=True
    ):
        assert (after <= before + 1e-9).all()
        assert (after[:2] < 0.8 * before[:2]).all()


def test_it_finds_the_best_of_a_separable_space_in_few_trials() -> None:
    score = toy_score(SPACE)
    best = max(score(one).value for one in SPACE.enumerate())
    for seed in range(3):
        controller = PredictorGuided(SPACE, seed=seed, budget=50)
        history = run_in_memory(controller, score, max_trials=50)
        assert len({record.digest for record in history}) == 50, "no candidate is proposed twice"
        winner = controller.winner(history)
        assert winner is not None and score(winner).value == best


def test_only_the_order_of_the_scores_counts() -> None:
    score = toy_score(SPACE)

    def steep(candidate: Candidate) -> Score:
        return Score(value=math.exp(20.0 * score(candidate).value))

    histories = [
        run_in_memory(PredictorGuided(SPACE, seed=1, budget=30), one, max_trials=30) for one in (score, steep)
    ]
    assert [one.digest for one in histories[0]] == [one.digest for one in histories[1]]


def test_beside_running_trials_it_goes_on_elsewhere() -> None:
    history: History = run_in_memory(
        PredictorGuided(SPACE, seed=0, budget=20), toy_score(SPACE), max_trials=20
    )
    asked = []
    for _ in range(4):
        one = PredictorGuided(SPACE, seed=0, budget=100).ask(history)
        assert isinstance(one, Architecture)
        asked.append(one.digest)
        history = extend(history, one, None)
    assert len(set(asked)) == 4 and not set(asked) & {record.digest for record in history[:20]}


def test_it_is_fitted_to_the_best_and_the_latest() -> None:
    order = np.array([5, 0, 3, 1, 2, 4])
    assert _chosen(order, 4) == [0, 3, 4, 5]
    assert _chosen(order, 2) == [4, 5]
    assert _chosen(order, 6) == _chosen(order, 100) == [0, 1, 2, 3, 4, 5]
    controller = PredictorGuided(SPACE, seed=0, budget=40, fitted=8)
    assert len(run_in_memory(controller, toy_score(SPACE), max_trials=40)) == 40


def test_costs_are_features_where_the_family_states_them() -> None:
    space = get_space("crnas.resnet18.stages")
    with_costs = PredictorGuided(space, seed=0, budget=9)
    found = cost(space.baseline)
    _, features = with_costs._encoder([space.baseline])
    assert features[0] == pytest.approx([math.log(found.params), math.log(found.macs)])
    assert PredictorGuided(space, seed=0, budget=9, costs=False)._encoder([space.baseline])[1].shape == (1, 0)
    assert PredictorGuided(SPACE, seed=0, budget=9)._encoder([SPACE.baseline])[1].shape == (1, 0)


def test_two_objectives_spread_over_the_front() -> None:
    """Score and cost pull against each other; the front of a search for both is wider than that for the score."""
    score = toy_score(SPACE)

    def price(architecture: Candidate) -> float:
        return 1.5 * score(architecture).value + 0.5 * sum(architecture.genes["values"]) / 6  # type: ignore[arg-type]

    def searched(controller: PredictorGuided) -> float:
        history: History = ()
        while isinstance(asked := controller.ask(history), Architecture):
            history = extend(history, asked, score)
            history = (*history[:-1], replace(history[-1], attributes={"price": price(asked)}))
        prices = [price(record.candidate) for record in front_of(history, "price")]
        return max(prices) - min(prices)

    one = [PredictorGuided(SPACE, seed=seed, budget=40) for seed in range(3)]
    assert fmean(searched(c.minimising("price")) for c in one) > fmean(searched(c) for c in one)
    assert one[0]._cost is None, "the controller itself stays as it was"


def test_a_search_with_two_objectives_tells_it_both_and_goes_on_from_its_history() -> None:
    def made() -> TwoObjectives:
        beside = Beside(objective="macs", allowed=8.0)
        return TwoObjectives(PredictorGuided(SPACE, seed=2, budget=25), beside)

    score = toy_score(SPACE)
    whole: History = ()
    controller = made()
    while isinstance(asked := controller.ask(whole), Architecture):
        again = made().ask(whole)
        assert isinstance(again, Architecture) and again.digest == asked.digest, "a fresh one agrees"
        macs = float(sum(asked.genes["values"]))  # type: ignore[arg-type]
        whole = extend(whole, asked, score)
        whole = (*whole[:-1], replace(whole[-1], attributes={"macs": macs}))
    alone = run_in_memory(PredictorGuided(SPACE, seed=2, budget=25), score, max_trials=25)
    assert [one.digest for one in whole] != [one.digest for one in alone]
    winner = controller.winner(whole)
    assert winner is not None and sum(winner.genes["values"]) <= 8  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("budget", 0), ("initial", 1), ("fitted", 1)])
def test_settings_are_checked(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found {value}"):
        PredictorGuided(SPACE, **{"seed": 0, "budget": 10, name: value})  # type: ignore[arg-type]


def test_options_of_a_recipe_reach_it() -> None:
    made = make_controller(
        "predictor_guided", space=SPACE, seed=1, budget=9, options={"initial": 4, "costs": False}
    )
    assert isinstance(made, PredictorGuided) and (made.initial, made.budget) == (4, 9)
