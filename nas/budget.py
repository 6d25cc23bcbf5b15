"""What a whole run may cost, and how that is divided over its works: arithmetic only, torch-free."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.saying import duration
from search_spaces.errors import ConfigError

Unit = Literal["seconds", "trials", "MACs"]
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]+)?)\s*(s|min|m|h|d|trials?|macs?)\s*", re.IGNORECASE)
ALLOWED = "a time (6h, 90min, 2d), a number of trials (200 trials) or of multiply-adds (1e18 MACs)"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit on a whole run, retraining included.

    Args:
        amount: of the unit.
        unit: seconds on the clock, trials of the search, or backbone multiply-adds.
    """

    amount: float
    unit: Unit

    def say(self, amount: float) -> str:
        """An amount of this budget's unit, for people."""
        if self.unit == "seconds":
            return duration(amount)
        return f"{amount:.0f} trials" if self.unit == "trials" else f"{amount:.2g} MACs"

    def __str__(self) -> str:
        return self.say(self.amount)


def read_budget(text: str) -> Budget:
    """Read what a person wrote.

    Raises:
        ConfigError: it is no budget.
    """
    found = _TEXT.fullmatch(text)
    amount = 0.0 if found is None else float(found[1])
    if found is None or not 0 < amount < math.inf or (found[2][0] in "tT" and amount % 1):
        raise ConfigError(f"budget: found {text!r}; allowed is {ALLOWED}")
    unit = found[2].lower()
    if unit.startswith("trial"):
        return Budget(amount=amount, unit="trials")
    if unit.startswith("mac"):
        return Budget(amount=amount, unit="MACs")
    return Budget(amount=amount * _SECONDS[unit], unit="seconds")


@dataclass(frozen=True, kw_only=True)
class Portion:
    """A work in a budget.

    Args:
        name: of the work.
        unit: what is counted, in the plural.
        wanted: units that the recipe asks for.
        least: units below which the work is worth nothing; as many as wanted where it cannot be cut.
        each: what a unit takes, in the budget's unit.
    """

    name: str
    unit: str
    wanted: int
    least: int
    each: float


def divide(portions: Sequence[Portion], amount: float) -> dict[str, int] | None:
    """Units of each work such that all together stay within an amount.

    Every work gets its least; what is left is shared so that each gets the same part of what it wants beyond that. A
    work that takes nothing in this unit gets all that it wants.

    Returns:
        Units by name of the work; None where not even the least fits.
    """
    least = sum(one.least * one.each for one in portions)
    beyond = sum((one.wanted - one.least) * one.each for one in portions)
    if least > amount:
        return None
    part = 1.0 if least + beyond <= amount else (amount - least) / beyond
    return {
        one.name: one.least + int((part if one.each else 1.0) * (one.wanted - one.least) + 1e-9)
        for one in portions
    }


def too_small(
    budget: Budget, portions: Sequence[Portion], gone: float = 0.0, *, begun: bool = False
) -> ConfigError:
    """The sentence for a budget that cannot hold a run at all.

    Args:
        budget: that is too small.
        portions: the works.
        gone: what was spent before, on none of them.
        begun: whether the run is under way, so that its recipe stands.
    """
    parts = sorted(portions, key=lambda one: -one.least * one.each)
    least = gone + sum(one.least * one.each for one in portions)
    said = ", ".join(
        f"{one.name} {budget.say(one.least * one.each)} ({one.least:,} {one.unit})"
        for one in parts
        if one.least * one.each > 0
    )
    said += f", {budget.say(gone)} of them spent before" if gone else ""
    remedy = (
        "nas resume takes a larger one, or --set budget=null"
        if begun
        else "raise it (nas resume takes a larger one too), or ask for less in the recipe: fewer steps or epochs, "
        "smaller images, narrower networks"
    )
    return ConfigError(
        f"budget: found {budget}, but the least that this recipe can do takes about {budget.say(least)}: {said}; "
        f"{remedy}"
    )


def more(budget: Budget, portions: Sequence[Portion], units: Mapping[str, int]) -> str | None:
    """What a larger budget would buy; None where the recipe is carried out whole."""
    missing = {one.name: one.wanted - units[one.name] for one in portions if units[one.name] < one.wanted}
    if not missing:
        return None
    told = ", ".join(
        f"{missing[one.name]} {one.unit} of {one.name}" for one in portions if one.name in missing
    )
    whole = sum(one.wanted * one.each for one in portions)
    return f"{told}: all of the recipe takes about {budget.say(whole)}"
