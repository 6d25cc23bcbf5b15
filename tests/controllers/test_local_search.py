"""Local search: where it climbs to, what that costs, and when it starts again."""

import pytest

from nas.controllers.local_search import LocalSearch
from nas.testing import SeparableSpace, ToySpace, run_in_memory, toy_score
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.catalog import get_space
from search_spaces.errors import CandidateFailed, ConfigError

SPACE = SeparableSpace(4, 3)


def genes(candidate: Candidate) -> tuple[int, ...]:
    return candidate.genes["values"]  # type: ignore[return-value]


def named(values: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(SPACE.genes, values, strict=True))


def test_a_climb_scores_each_neighbourhood_once_and_ends_at_the_top() -> None:
    """The steepest gene moves first, and to its best option at once: four moves to the top.

    Counted by hand: the start, its 8 neighbours, then 6, 5, 5 and at the top 5 that were not met before.
    """

    def score(candidate: Candidate) -> Score:
        return Score(value=sum(10**place * gene for place, gene in enumerate(genes(candidate))))

    history = run_in_memory(LocalSearch(SPACE, seed=0, budget=31), score, max_trials=31)
    path = [(1, 1, 1, 1), (1, 1, 1, 3), (1, 1, 3, 3), (1, 3, 3, 3), (3, 3, 3, 3)]
    wanted = [path[0]]
    for here in path:
        near = [genes(neighbour) for neighbour in SPACE.neighbours(SPACE.architecture(named(here)))]
        wanted += [values for values in near if values not in wanted]
    assert len(wanted) == 1 + 8 + 6 + 5 + 5 + 5
    tried = [genes(record.candidate) for record in history]
    assert tried[:30] == wanted
    assert tried[30] not in wanted, "it starts again elsewhere"
    winner = LocalSearch(SPACE, seed=0, budget=31).winner(history)
    assert winner is not None and genes(winner) == (3, 3, 3, 3)


def test_a_local_optimum_is_left_only_when_its_whole_neighbourhood_is_known() -> None:
    def score(candidate: Candidate) -> Score:
        ones = genes(candidate).count(1)
        return Score(value=5.0 if genes(candidate) == (3, 3, 3, 3) else ones)

    for width in (None, 1, 3):
        controller = LocalSearch(SPACE, seed=1, budget=81, width=width)
        history = run_in_memory(controller, score, max_trials=81)
        near = {neighbour.digest for neighbour in SPACE.neighbours(SPACE.baseline)}
        assert {record.digest for record in history[1:9]} == near
        assert history[9].digest not in near
        assert len(history) == 81
        assert controller.winner(history) == SPACE.architecture(named((3, 3, 3, 3)))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_fewer_neighbours_at_a_time(width: int) -> None:
    """Every ``width`` of them the search moves to the best of these, if it is better than where it stands."""
    score = toy_score(SPACE, seed=3)
    controller = LocalSearch(SPACE, seed=0, budget=81, width=width)
    history = run_in_memory(controller, score, max_trials=81)
    values = {record.digest: record.value for record in history}
    here, place, moves = SPACE.baseline, 1, 0
    while True:
        near = {neighbour.digest for neighbour in SPACE.neighbours(here)}
        fresh = near - {record.digest for record in history[:place]}
        came = 0
        while place + came < 81 and history[place + came].digest in fresh:
            came += 1
        if came < len(fresh):
            # It stopped early: what came last in this stage made it move.
            stage = history[max(place, place + came - width) : place + came]
            best = max(stage, key=lambda record: record.value)  # type: ignore[arg-type, return-value]
            assert best.value > values[here.digest]  # type: ignore[operator]
            here = best.candidate  # type: ignore[assignment]
            place, moves = place + came, moves + 1
            continue
        break
    assert moves >= 2
    order = [record.digest for record in history]
    assert order != [
        record.digest
        for record in run_in_memory(LocalSearch(SPACE, seed=1, budget=81, width=width), score, max_trials=81)
    ]


def test_a_random_start_depends_on_the_seed() -> None:
    starts = {
        LocalSearch(SPACE, seed=seed, budget=9, start="random").ask(()).digest  # type: ignore[union-attr]
        for seed in range(8)
    }
    assert len(starts) > 4
    assert LocalSearch(SPACE, seed=5, budget=9).ask(()) == SPACE.baseline


def test_a_start_without_a_score_is_left_at_once() -> None:
    def score(candidate: Candidate) -> Score:
        if candidate == SPACE.baseline:
            raise CandidateFailed("no")
        return Score(value=0.0)

    history = run_in_memory(LocalSearch(SPACE, seed=0, budget=10), score, max_trials=10)
    start = history[1].candidate
    assert isinstance(start, Architecture)
    assert [record.candidate for record in history[2:10]] == list(SPACE.neighbours(start))[:8]


def test_it_never_moves_to_a_candidate_without_a_score() -> None:
    """All neighbours fail, so the start is a local optimum."""

    def score(candidate: Candidate) -> Score:
        if candidate != SPACE.baseline and sum(genes(candidate)) <= 6:
            raise CandidateFailed("no")
        return Score(value=0.0)

    history = run_in_memory(LocalSearch(SPACE, seed=4, budget=10), score, max_trials=10)
    assert {record.state for record in history[1:9]} == {"failed"}
    assert history[9].digest not in {neighbour.digest for neighbour in SPACE.neighbours(SPACE.baseline)}


def test_hundreds_of_neighbours_a_few_at_a_time() -> None:
    space = get_space("spinenet.spinenet49")
    near = {neighbour.digest for neighbour in space.neighbours(space.baseline)}
    assert len(near) > 100
    controller = LocalSearch(space, seed=0, budget=20, width=6)
    history = run_in_memory(
        controller, lambda candidate: Score(value=int(candidate.digest, 16) / 2**64), max_trials=20
    )
    assert len({record.digest for record in history}) == 20
    assert {record.digest for record in history[1:7]} <= near


@pytest.mark.parametrize(("name", "value"), [("start", "middle"), ("width", 0)])
def test_settings_are_checked(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found {value!r}"):
        LocalSearch(ToySpace(), **{"seed": 0, "budget": 10, name: value})  # type: ignore[arg-type]
