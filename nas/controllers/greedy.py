"""Greedy search over decided prefixes with a beam: CR-NAS's dilation search.

Liang et al. 2020, section 3.3.2 and algorithm 1: the genes are decided one after another; each of the
K best prefixes is extended by every value of the next gene, and all extensions are scored. The proxy
completes a prefix at random per mini-batch, so its score is an expectation over what is undecided. The last
level compares whole architectures.
"""

from collections.abc import Sequence

from nas.controllers.base import Done, wait_or_done
from nas.trials import History, Record
from search_spaces.architecture import Architecture, Candidate, Value
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace

Values = tuple[Value, ...]
BEAM = 3
"""Liang et al. 2020's K."""


class Greedy:
    """Beam search over prefixes of the genes, in the order of the space.

    With three values a gene and a beam of 3 it asks for 3 + 9 (genes - 1) scores. It has no randomness
    of its own. A level begins when every score of the level before is in; prefixes without a score (failed
    ones) are not extended.

    Args:
        space: its genes, in order.
        beam: K, how many prefixes survive a level.
    """

    def __init__(self, space: SearchSpace, *, beam: int = BEAM) -> None:
        if beam < 1:
            raise ConfigError(f"beam: found {beam}; greedy search needs at least 1 survivor a level")
        self.space = space
        self.beam = beam
        self._options: tuple[Values, ...] = tuple(tuple(gene.enumerate()) for gene in space.genes.values())
        self._candidates: dict[Values, Candidate] = {}

    def ask(self, history: History) -> Candidate | Done | None:
        """The next extension of the current level, None while the level still runs."""
        return self._replay(history)[0]

    def winner(self, history: History) -> Architecture | None:
        """The best whole architecture of the last level; ties keep the order of enumeration."""
        survivors = self._replay(history)[1]
        if not survivors:
            return None
        winner = self._candidate(survivors[0])
        return winner if isinstance(winner, Architecture) else None

    def _replay(self, history: History) -> tuple[Candidate | Done | None, Sequence[Values]]:
        """Walk the levels as far as the history carries.

        Returns:
            What to answer, and the survivors of the last level whose scores are all in, best first.
        """
        records: dict[str, Record] = {}
        for record in history:
            # A repeated candidate keeps its score: a later failure takes nothing back.
            if record.digest not in records or records[record.digest].state != "complete":
                records[record.digest] = record
        survivors: Sequence[Values] = ((),)
        for options in self._options:
            level = [(*values, option) for values in survivors for option in options]
            known = [records.get(self._candidate(values).digest) for values in level]
            if None in known:
                return self._candidate(level[known.index(None)]), survivors
            if any(record is not None and not record.finished for record in known):
                return None, survivors
            scored = [
                (record.value, values)
                for values, record in zip(level, known, strict=True)
                if record is not None and record.value is not None
            ]
            # Stable, so that ties keep the order of enumeration.
            scored.sort(key=lambda pair: pair[0], reverse=True)
            survivors = [values for _, values in scored[: self.beam]]
            if not survivors:
                return wait_or_done(history), ()
        return wait_or_done(history), survivors

    def _candidate(self, values: Values) -> Candidate:
        if values not in self._candidates:
            self._candidates[values] = self.space.candidate(values)
        return self._candidates[values]
