"""A run's budget while it is spent.

What each work may do was written down once (:mod:`nas.methods.granting`), so that a resumed run keeps to it and
``nas replay`` can follow. Where candidates or the clock take more than was foreseen a phase ends earlier, and that is
written down too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nas.budget import Budget, Portion, more, read_budget
from nas.controllers.base import Controller, Done, wait_or_done
from nas.methods.costs import phase_costs, table_costs
from nas.planning import LEAST
from nas.recipes.controller import ControllerRecipe
from nas.run import Run
from nas.study import History, Record
from search_spaces.architecture import Architecture, Candidate

FILE = "budget.json"
MARGIN = 0.05
"""Of a budget of time that is not given out: reading images, the report, and what a minute could not foresee."""
TABLE = "final table"


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a run may do within its budget.

    Args:
        run: whose.
        text: the budget as a person wrote it; None where it was taken away again.
        key: what else the division depends on.
        portions: works in their order.
        units: of each work.
        trials: of each phase that can be cut, those that a limit rejects included.
        drawn: phases that draw at random from a space of which an exhaustive search cannot look at all.
        closed: phase, or the table -> trials, or trainings, at which it was ended for lack of room.
    """

    run: Run
    text: str | None
    key: Sequence[Any] = ()
    portions: tuple[Portion, ...]
    units: Mapping[str, int]
    trials: Mapping[str, int]
    drawn: Sequence[str] = ()
    closed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Allowance | None":
        """As it was written down; None where nothing was."""
        if (found := run.read_json(FILE)) is None:
            return None
        return cls(
            run=run,
            text=found["budget"],
            key=found["key"],
            portions=tuple(Portion(**one) for one in found["portions"]),
            units=found["units"],
            trials=found["trials"],
            drawn=found["drawn"],
            closed=found["closed"],
        )

    @property
    def budget(self) -> Budget | None:
        """Of all of the run."""
        return None if self.text is None else read_budget(self.text)

    def write(self) -> None:
        """Write it down."""
        self.run.write_json(
            FILE,
            {
                "budget": self.text,
                "key": list(self.key),
                "portions": [asdict(one) for one in self.portions],
                "units": dict(self.units),
                "trials": dict(self.trials),
                "drawn": list(self.drawn),
                "closed": self.closed,
            },
        )

    def spent(self, trials: Mapping[str, History]) -> float:
        """Until now, in the budget's unit.

        Args:
            trials: of every phase.
        """
        if self.budget is None or self.budget.unit == "seconds":
            return self.run.books.elapsed()
        if self.budget.unit == "trials":
            return float(sum(map(len, trials.values())))
        size = _image_size(self.run)
        return float(
            sum(one.macs for one in (*phase_costs(self.run, trials, size), *table_costs(self.run, size)))
        )

    def reserved(self, name: str) -> float:
        """What the works after this one are to get, in the budget's unit."""
        names = [one.name for one in self.portions]
        later = self.portions[names.index(name) + 1 :]
        return sum(self.units[one.name] * one.each for one in later)

    def has_room(self, name: str, under_way: int, spent: float) -> bool:
        """Whether the budget has room for one more unit of a work.

        Args:
            name: of the work.
            under_way: units begun and not ended.
            spent: until now, in the budget's unit.
        """
        if self.budget is None:
            return True
        each = next(one.each for one in self.portions if one.name == name)
        margin = MARGIN / 2 if self.budget.unit == "seconds" else 0.0
        return spent + (under_way + 1) * each + self.reserved(name) <= (1 - margin) * self.budget.amount

    def close(self, name: str, at: int) -> None:
        """Write down that a phase or the table ends here, before that is acted upon."""
        self.closed[name] = at
        self.write()

    def last_line(self, trials: Mapping[str, History]) -> str | None:
        """What was spent, and what more would buy; the argument as of :meth:`spent`. None without a budget."""
        if self.budget is None:
            return None
        said = f"{self.budget.say(self.spent(trials))} of {self.budget} spent"
        if self.closed:
            said += f"; ended early for lack of room: {', '.join(self.closed)}"
        units = dict(self.units)
        for name, at in self.closed.items():
            if name in self.trials:
                work = f"{name}: scoring"
                at = sum(not _rejected(record) for record in trials.get(name, ())[:at])
            else:
                work = name
            units[work] = min(units[work], at)
        bought = more(self.budget, self.portions, units)
        return said + (
            "; the recipe was carried out whole" if bought is None else f". More would buy {bought}"
        )


def within(run: Run, phase: str, recipe: ControllerRecipe) -> ControllerRecipe:
    """The controller's recipe as far as the budget lets it go."""
    allowance = Allowance.of(run)
    if allowance is None or phase not in allowance.trials:
        return recipe
    trials = allowance.trials[phase]
    if phase in allowance.drawn:
        return ControllerRecipe(name="random", budget=trials)
    if recipe.budget is None or trials >= recipe.budget:
        return recipe
    return replace(recipe, budget=trials)


def while_room(run: Run, phase: str, controller: Controller, others: Mapping[str, History]) -> Controller:
    """The controller, which proposes nothing more once the budget has no room.

    Args:
        run: whose budget.
        phase: that it searches.
        controller: proposes.
        others: the trials of all other phases.
    """
    allowance = Allowance.of(run)
    if allowance is None or phase not in allowance.trials:
        return controller
    return WhileRoom(controller, allowance, phase, others)


class WhileRoom:
    """A controller in a budget; arguments as of :func:`while_room`."""

    def __init__(
        self, controller: Controller, allowance: Allowance, phase: str, others: Mapping[str, History]
    ) -> None:
        self._controller, self._allowance, self._phase = controller, allowance, phase
        budget = allowance.budget
        self._unit = None if budget is None else budget.unit
        self._before = 0.0 if self._unit in (None, "seconds") else allowance.spent({**others, phase: ()})
        self._counted: set[int] = set()

    def ask(self, history: History) -> Candidate | Done | None:
        """What the controller proposes, while there is room for it."""
        closed = self._allowance.closed
        if self._phase in closed and len(history) >= closed[self._phase]:
            return wait_or_done(history)
        asked = self._controller.ask(history)
        if self._phase in closed or not isinstance(asked, Architecture) or self._fits(history):
            return asked
        # So that a resumed search ends at the same trial.
        self._allowance.close(self._phase, len(history))
        return wait_or_done(history)

    def _fits(self, history: History) -> bool:
        if self._unit is None:
            return True
        name = f"{self._phase}: scoring"
        begun = sum(not _rejected(record) for record in history)
        if begun < LEAST:
            return True
        # Of the rival the search's expense decides how many there are.
        if self._phase != "random" and begun >= self._allowance.units[name]:
            return False
        under_way = sum(not record.finished for record in history)
        return self._allowance.has_room(name, under_way, self._spent(history))

    def _spent(self, history: History) -> float:
        if self._unit == "seconds":
            return self._allowance.run.books.elapsed()
        if self._unit == "trials":
            return self._before + len(history)
        run = self._allowance.run
        new = tuple(record for record in history if record.finished and record.number not in self._counted)
        self._counted.update(record.number for record in new)
        found = phase_costs(run, {self._phase: new}, _image_size(run)) if new else ()
        # A supernet's training is among what was spent before.
        self._before += sum(one.macs for one in found if one.trials is not None)
        return self._before

    def winner(self, history: History) -> Architecture | None:
        """The controller's."""
        return self._controller.winner(history)


def table_room(run: Run) -> Callable[[int, int], bool] | None:
    """Whether a training more of the final table is within the budget; see :func:`nas.methods.retraining.run_jobs`."""
    allowance = Allowance.of(run)
    if allowance is None or allowance.budget is None or TABLE not in allowance.units:
        return None
    units, seconds = allowance.units[TABLE], allowance.budget.unit == "seconds"
    least = next(one.least for one in allowance.portions if one.name == TABLE)

    def has_room(begun: int, under_way: int) -> bool:
        if begun < least:
            return True
        if begun >= allowance.closed.get(TABLE, units):
            return False
        # Trainings of the table cost what was foreseen in any unit but seconds.
        if not seconds or allowance.has_room(TABLE, under_way, run.books.elapsed()):
            return True
        allowance.close(TABLE, begun)
        return False

    return has_room


def _rejected(record: Record) -> bool:
    """Whether a limit ended it before anything was spent."""
    return record.state == "pruned" and record.stopped_at is None


def _image_size(run: Run) -> tuple[int, int]:
    height, width = (run.read_json("data.json") or {"image_size": (224, 224)})["image_size"]
    return height, width
