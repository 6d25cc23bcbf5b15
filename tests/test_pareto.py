"""The Pareto front against its definition, and the rule that picks the winner."""

from hypothesis import given
from hypothesis import strategies as st

from nas.pareto import affordable_best, cost_of, front, front_of
from nas.study import History, Record
from nas.testing import ToySpace

CANDIDATES = list(ToySpace().enumerate())
Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_the_front_is_what_nothing_dominates(points: list[Point]) -> None:
    found = front(points)
    expected = {one for one in points if not any(dominates(other, one) for other in points)}
    assert {points[place] for place in found} == expected
    assert len(found) == len(expected), "equal points are listed once"
    assert all(place == points.index(points[place]) for place in found), "and it is the first of them"
    assert [points[place][1] for place in found] == sorted(points[place][1] for place in found)


def history(*points: tuple[float | None, float | None]) -> History:
    return tuple(
        Record(
            number=number,
            phase="search",
            candidate=CANDIDATES[number],
            digest=CANDIDATES[number].digest,
            value=value,
            state="pruned" if value is None else "complete",
            attributes={} if cost is None else {"macs": cost},
        )
        for number, (value, cost) in enumerate(points)
    )


def test_only_scored_trials_with_a_cost_take_part() -> None:
    found = history((3.0, 10.0), (None, 1.0), (9.0, None), (3.0, 12.0), (5.0, 12.0), (1.0, 4.0))
    assert [record.number for record in front_of(found, "macs")] == [5, 0, 4]
    assert front_of(found, "params") == []
    assert cost_of(found[2], "macs") is None and cost_of(found[0], "macs") == 10.0


def test_the_winner_is_the_best_that_is_affordable() -> None:
    found = history((3.0, 10.0), (5.0, 12.0), (4.0, 11.0), (4.0, 9.0), (None, 1.0))
    assert affordable_best(found, "macs", 11.0) == CANDIDATES[3], "of equal scores the cheaper"
    assert affordable_best(found, "macs", 12.0) == CANDIDATES[1]
    assert affordable_best(found, "macs", 2.0) == CANDIDATES[1], "nothing is so cheap: the best of all"
    assert affordable_best(history((None, 1.0)), "macs", 2.0) is None
    assert affordable_best((), "macs", 2.0) is None
