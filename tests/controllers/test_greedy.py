"""Greedy search: Liang et al. 2020, algorithm 1, against brute force."""

import random

import pytest

from nas.controllers.base import DONE
from nas.controllers.greedy import Greedy
from nas.study import Score
from nas.testing import SeparableSpace, extend, run_in_memory, toy_score
from search_spaces.architecture import Architecture, Candidate, Prefix
from search_spaces.errors import CandidateFailed, ConfigError
from search_spaces.randomness import rng_for


def best_of_all(space: SeparableSpace, score) -> Architecture:  # type: ignore[no-untyped-def]
    return max(space.enumerate(), key=lambda architecture: score(architecture).value)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("genes", [1, 2, 5, 8])
def test_separable_scores_give_the_global_optimum(genes: int, seed: int) -> None:
    space = SeparableSpace(genes, 3)
    score = toy_score(space, seed=seed)
    history = run_in_memory(Greedy(space), score, max_trials=1000)
    winner = Greedy(space).winner(history)
    assert winner == best_of_all(space, score)


@pytest.mark.parametrize("genes", [2, 4])
def test_a_wide_enough_beam_is_brute_force_for_any_score(genes: int) -> None:
    space = SeparableSpace(genes, 3)

    def score(candidate: Candidate) -> Score:
        return Score(value=rng_for(9, candidate.digest).random())

    controller = Greedy(space, beam=3 ** (genes - 1))
    history = run_in_memory(controller, score, max_trials=1000)
    assert controller.winner(history) == best_of_all(space, score)


@pytest.mark.parametrize(("genes", "calls"), [(1, 3), (8, 66), (16, 138), (33, 291)])
def test_number_of_scores(genes: int, calls: int) -> None:
    space = SeparableSpace(genes, 3)
    history = run_in_memory(Greedy(space), toy_score(space), max_trials=1000)
    assert len(history) == calls == 3 + 9 * (genes - 1)


def test_prefixes_first_whole_architectures_last() -> None:
    space = SeparableSpace(3, 3)
    history = run_in_memory(Greedy(space), toy_score(space), max_trials=100)
    kinds = [len(r.candidate.genes) if isinstance(r.candidate, Prefix) else 3 for r in history]
    assert kinds == [1] * 3 + [2] * 9 + [3] * 9
    assert all(isinstance(record.candidate, Architecture) for record in history[12:])


def test_a_level_needs_every_score_of_the_level_before() -> None:
    space = SeparableSpace(3, 3)
    controller, score = Greedy(space), toy_score(space)
    running = ()
    for _ in range(3):
        asked = controller.ask(running)
        assert isinstance(asked, Prefix)
        running = extend(running, asked, None)
    assert controller.ask(running) is None
    done = ()
    for record in running:
        done = extend(done, record.candidate, score)
    assert isinstance(controller.ask(done), Prefix)
    assert controller.ask((*done[:2], running[2])) is None


def test_ties_keep_the_order_of_enumeration() -> None:
    space = SeparableSpace(3, 3)
    controller = Greedy(space)
    history = run_in_memory(controller, lambda candidate: Score(value=0.0), max_trials=100)
    assert controller.winner(history) == space.baseline  # all ones come first
    level = [tuple(record.candidate.genes.values()) for record in history[3:12]]
    assert level == [(a, b) for a in (1, 2, 3) for b in (1, 2, 3)]


def test_the_winner_is_of_the_last_level_though_a_prefix_scored_higher() -> None:
    space = SeparableSpace(2, 3)

    def score(candidate: Candidate) -> Score:
        return Score(value=100.0 if isinstance(candidate, Prefix) else 1.0)

    controller = Greedy(space)
    history = run_in_memory(controller, score, max_trials=100)
    assert isinstance(controller.winner(history), Architecture)
    assert controller.winner(history[:-1]) is None, "the level is not complete yet"


def test_random_completion_never_alters_what_is_decided() -> None:
    space = SeparableSpace(8, 3)
    prefix = space.prefix((3, 1, 2))
    for seed in range(100):
        completed = space.values(space.complete(prefix, random.Random(seed)))
        assert tuple(completed.values())[:3] == (3, 1, 2)


def test_a_beam_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="beam"):
        Greedy(SeparableSpace(), beam=0)


def test_done_without_a_winner_when_a_whole_level_failed() -> None:
    def score(candidate: Candidate) -> Score:
        raise CandidateFailed("no")

    space = SeparableSpace(3, 3)
    controller = Greedy(space)
    history = run_in_memory(controller, score, max_trials=100)
    assert len(history) == 3
    assert controller.ask(history) is DONE
    assert controller.winner(history) is None
