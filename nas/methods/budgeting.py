"""A run's budget: divided before anything is spent, and watched while it is.

What each work may do is written down once, so that a resumed run keeps to it and ``nas replay`` can follow. Where the
clock runs faster than was foreseen a phase ends earlier, and that is written down too.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from nas.budget import Budget, Portion, more, read_budget
from nas.controllers.base import Controller, Done, wait_or_done
from nas.methods.costs import phase_costs, table_costs
from nas.planning import LEAST
from nas.recipes.controller import ControllerRecipe
from nas.run import Run
from nas.study import History
from search_spaces.architecture import Architecture, Candidate
from search_spaces.space import SearchSpace

FILE = "budget.json"
MARGIN = 0.05
"""Of a budget of time that is not given out: reading images, the report, and what a minute could not foresee."""
TABLE = "final table"


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a run may do within its budget.

    Args:
        run: whose.
        budget: of all of it.
        portions: works in their order.
        units: of each work.
        trials: of each phase, those that a limit rejects included.
        closed: phase -> trials at which it was ended because the budget had no more room.
    """

    run: Run
    budget: Budget
    portions: tuple[Portion, ...]
    units: Mapping[str, int]
    trials: Mapping[str, int]
    closed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Allowance | None":
        """As it was written down; None where there is no budget, or nothing was written yet."""
        if run.recipe.budget is None or (found := run.read_json(FILE)) is None:
            return None
        return cls(
            run=run,
            budget=read_budget(found["budget"]),
            portions=tuple(Portion(**one) for one in found["portions"]),
            units=found["units"],
            trials=found["trials"],
            closed=found["closed"],
        )

    def write(self) -> None:
        """Write it down."""
        assert self.run.recipe.budget is not None, "there is a budget"
        self.run.write_json(
            FILE,
            {
                "budget": self.run.recipe.budget,
                "portions": [asdict(one) for one in self.portions],
                "units": dict(self.units),
                "trials": dict(self.trials),
                "closed": self.closed,
            },
        )

    def spent(self, trials: Mapping[str, History]) -> float:
        """Until now, in the budget's unit.

        Args:
            trials: of every phase.
        """
        if self.budget.unit == "seconds":
            return self.run.books.elapsed()
        if self.budget.unit == "trials":
            return float(sum(map(len, trials.values())))
        facts = self.run.read_json("data.json") or {"image_size": (224, 224)}
        size = (facts["image_size"][0], facts["image_size"][1])
        return float(
            sum(one.macs for one in (*phase_costs(self.run, trials, size), *table_costs(self.run, size)))
        )

    def reserved(self, name: str) -> float:
        """What the works after this one are to get, in the budget's unit."""
        names = [one.name for one in self.portions]
        later = self.portions[names.index(name) + 1 :]
        return sum(self.units[one.name] * one.each for one in later)

    def has_room(self, name: str, under_way: int) -> bool:
        """Whether a time budget has room for one more unit of a work; other budgets are divided, not watched.

        Args:
            name: of the work.
            under_way: units begun and not ended.
        """
        if self.budget.unit != "seconds":
            return True
        each = next(one.each for one in self.portions if one.name == name)
        wanted = self.spent({}) + (under_way + 1) * each + self.reserved(name)
        return wanted <= (1 - MARGIN / 2) * self.budget.amount

    def last_line(self, trials: Mapping[str, History]) -> str:
        """What was spent, and what more would buy; the argument as of :meth:`spent`."""
        said = f"{self.budget.say(self.spent(trials))} of {self.budget} spent"
        if self.closed:
            said += f"; ended early for lack of room: {', '.join(self.closed)}"
        units = dict(self.units)
        for phase, at in self.closed.items():
            name = f"{phase}: scoring"
            units[name] = min(units[name], round(at * units[name] / max(1, self.trials[phase])))
        bought = more(self.budget, self.portions, units)
        return said + (
            "; the recipe was carried out whole" if bought is None else f". More would buy {bought}"
        )


def within(run: Run, phase: str, recipe: ControllerRecipe, space: SearchSpace) -> ControllerRecipe:
    """The controller's recipe as far as the budget lets it go; all of a space that it cannot look at, by chance."""
    allowance = Allowance.of(run)
    if allowance is None or phase not in allowance.trials:
        return recipe
    trials = allowance.trials[phase]
    if recipe.name == "exhaustive":
        # The first so many in the order of the genes would all be alike.
        return recipe if trials >= space.size else ControllerRecipe(name="random", budget=trials)
    if recipe.budget is None or trials >= recipe.budget:
        return recipe
    return replace(recipe, budget=trials)


def while_room(run: Run, phase: str, controller: Controller) -> Controller:
    """The controller, which proposes nothing more once the budget has no room."""
    allowance = Allowance.of(run)
    if allowance is None:
        return controller
    return WhileRoom(controller, allowance, phase)


class WhileRoom:
    """A controller in a budget.

    Args:
        controller: proposes.
        allowance: of the run.
        phase: its name.
    """

    def __init__(self, controller: Controller, allowance: Allowance, phase: str) -> None:
        self._controller, self._allowance, self._phase = controller, allowance, phase

    def ask(self, history: History) -> Candidate | Done | None:
        """What the controller proposes, while there is room for it."""
        closed = self._allowance.closed
        if self._phase in closed and len(history) >= closed[self._phase]:
            return wait_or_done(history)
        asked = self._controller.ask(history)
        if self._phase in closed or not isinstance(asked, Architecture) or self._fits(history):
            return asked
        # Before it is acted upon, so that a resumed search ends at the same trial.
        closed[self._phase] = len(history)
        self._allowance.write()
        return wait_or_done(history)

    def _fits(self, history: History) -> bool:
        if self._phase not in self._allowance.trials:
            return True
        under_way = sum(not record.finished for record in history)
        begun = under_way + sum(record.value is not None for record in history)
        return begun < LEAST or self._allowance.has_room(f"{self._phase}: scoring", under_way)

    def winner(self, history: History) -> Architecture | None:
        """The controller's."""
        return self._controller.winner(history)


def table_room(run: Run) -> Callable[[int, int], bool] | None:
    """Whether a training more of the final table is within the budget; see :func:`nas.methods.retraining.run_jobs`."""
    allowance = Allowance.of(run)
    if allowance is None:
        return None
    units = allowance.units.get(TABLE, 0)
    least = next((one.least for one in allowance.portions if one.name == TABLE), 0)

    def has_room(begun: int, under_way: int) -> bool:
        return begun < least or (begun < units and allowance.has_room(TABLE, under_way))

    return has_room
