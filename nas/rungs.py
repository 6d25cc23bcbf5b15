"""What decides on the way whether a candidate goes on."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from nas.trials import History


class Rungs(Protocol):
    """Decides at each of its rungs which candidates go on, from the journal alone.

    A decision is a function of the values written before it, so a search that was killed between a value and its
    decision decides as if it had not been, and every decision can be made again (:mod:`nas.replay`).
    """

    @property
    def rungs(self) -> Sequence[int]:
        """Where a candidate is scored on the way, rising: training steps, or images looked at."""
        ...

    def stops(self, history: History, number: int, step: int) -> str | None:
        """Why a trial ends at a rung, in a sentence, or None when it goes on.

        Args:
            history: of the phase, with the trial's value at ``step`` in it.
            number: of the trial.
            step: one of the rungs.
        """
        ...

    def decisions(self, history: History) -> Mapping[tuple[int, int], bool]:
        """Whether a trial is stopped at a step, by its number and each step that it reached, decided again."""
        ...
