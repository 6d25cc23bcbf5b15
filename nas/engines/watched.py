"""An engine that somebody looks on."""

from collections.abc import Callable, Iterator, Sequence

from nas.engines.base import Engine, Job, Outcome


class Watched:
    """Another engine, and every outcome told to a listener before the search has it.

    Args:
        engine: carries the jobs out.
        ended: hears of a job and what came of it.
    """

    def __init__(self, engine: Engine, ended: Callable[[Job, Outcome], None]) -> None:
        self.engine, self._ended = engine, ended

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """As the engine gives them."""
        for job, outcome in self.engine.outcomes(jobs):
            self._ended(job, outcome)
            yield job, outcome

    def add(self, jobs: Sequence[Job]) -> None:
        """To the engine."""
        self.engine.add(jobs)

    def withdraw(self) -> None:
        """From the engine."""
        self.engine.withdraw()
