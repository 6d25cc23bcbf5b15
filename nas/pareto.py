"""Two objectives, a score and a cost: which candidates nothing else beats, and which one is kept. Torch-free."""

from collections.abc import Sequence

from nas.trials import History, Record
from search_spaces.architecture import Architecture


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other dominates, cheapest first.

    One point dominates another when its score is at least as high and its cost at most as high, and one of the two
    strictly so (Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II"). Of equal points
    only the first is listed.

    Args:
        points: (score, cost) each; a larger score and a smaller cost are better.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][1], -points[place][0], place))
    found: list[int] = []
    for place in order:
        if not found or points[place][0] > points[found[-1]][0]:
            found.append(place)
    return found


def cost_of(record: Record, objective: str) -> float | None:
    """What a trial costs in an objective (``macs``, ``params``), as it was written down; None where it was not."""
    found = record.attributes.get(objective)
    return float(found) if isinstance(found, int | float) else None


def front_of(history: History, objective: str) -> list[Record]:
    """The scored whole candidates that no other dominates in (score, cost), cheapest first."""
    scored = _scored(history, objective)
    return [scored[place][0] for place in front([(score, cost) for _, score, cost in scored])]


def affordable_best(history: History, objective: str, allowed: float) -> Architecture | None:
    """The winner of a search with two objectives: the highest score at a cost of at most ``allowed``.

    Where nothing is so cheap it is the highest score of all. Of equal scores the cheaper wins, then the earlier.
    """
    scored = _scored(history, objective)
    pool = [entry for entry in scored if entry[2] <= allowed] or scored
    if not pool:
        return None
    best = max(pool, key=lambda entry: (entry[1], -entry[2], -entry[0].number))[0].candidate
    assert isinstance(best, Architecture)
    return best


def _scored(history: History, objective: str) -> list[tuple[Record, float, float]]:
    return [
        (record, record.value, cost)
        for record in history
        if record.value is not None
        and isinstance(record.candidate, Architecture)
        and (cost := cost_of(record, objective)) is not None
    ]
