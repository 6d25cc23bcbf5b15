"""The one sentence a report opens with, and the rule behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nas.report.ranking import PairedDifference, paired_difference


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do with the winner.

    Args:
        kind: ``better`` only where the whole 95 % interval of winner minus baseline lies above zero.
        sentence: what the page says first.
        detail: the numbers behind it, in AP points.
        difference: winner minus baseline, fractions; ``None`` before both are trained.
    """

    kind: Literal["better", "no better", "worse", "same", "one seed", "untrained", "searching"]
    sentence: str
    detail: str
    difference: PairedDifference | None = None

    @property
    def keep_baseline(self) -> bool:
        """Whether the evidence speaks for keeping the baseline."""
        return self.kind in ("no better", "worse", "same")


def judge(
    *, winner: Mapping[int, float] | None, baseline: Mapping[int, float], same: bool, state: str
) -> Verdict:
    """Compare winner and baseline, both trained to completion.

    Args:
        winner: AP (fraction) by seed; ``None`` while there is no winner.
        baseline: AP (fraction) by seed.
        same: whether winner and baseline are one architecture.
        state: of the run, for the sentence while it is still searching.
    """
    if winner is None:
        return Verdict(kind="searching", sentence="The search has no winner yet.", detail=f"State: {state}.")
    if same:
        return Verdict(
            kind="same",
            sentence="The search chose the baseline itself: keep the baseline.",
            detail="Winner and baseline are the same architecture, so there is no difference to measure.",
        )
    if not set(winner) & set(baseline):
        return Verdict(
            kind="untrained",
            sentence="The search has a winner; whether it beats the baseline is not known yet.",
            detail="Winner and baseline have not been trained to completion under a common seed.",
        )
    difference = paired_difference(winner, baseline)
    return _trained(difference)


def _trained(difference: PairedDifference) -> Verdict:
    mean, seeds = f"{100 * difference.mean:+.1f}".replace("-", "−"), len(difference.seeds)
    if difference.low is None or difference.high is None or difference.standard_error is None:
        return Verdict(
            kind="one seed",
            sentence=f"Winner minus baseline is {mean} AP under one seed, which proves nothing.",
            detail="Without a second seed there is no spread to compare with; train both under more seeds.",
            difference=difference,
        )
    low, high = (f"{100 * edge:+.1f}".replace("-", "−") for edge in (difference.low, difference.high))
    numbers = (
        f"Winner minus baseline: {mean} AP, 95 % interval {low} to {high}, standard error "
        f"{100 * difference.standard_error:.2f}, {seeds} seeds paired."
    )
    if difference.contains_zero:
        return Verdict(
            kind="no better",
            sentence="No better than the baseline, keep the baseline.",
            detail=f"{numbers} The interval contains zero.",
            difference=difference,
        )
    if difference.mean < 0:
        return Verdict(
            kind="worse",
            sentence=f"Worse than the baseline by {mean.lstrip('−')} AP, keep the baseline.",
            detail=numbers,
            difference=difference,
        )
    return Verdict(
        kind="better",
        sentence=f"The winner beats the baseline by {mean.lstrip('+')} AP.",
        detail=numbers,
        difference=difference,
    )
