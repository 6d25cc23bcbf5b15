"""A run's budget divided over its works, before anything is spent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nas.budget import Budget, Portion, divide, read_budget, too_small
from nas.ledger import REST, by_activity, starts_of
from nas.methods.budgeting import FILE, MARGIN, TABLE, Allowance
from nas.methods.catalog import procedure
from nas.methods.data import SearchData
from nas.methods.planning import MINUTE, make_plan, table_jobs
from nas.planning import Plan, Work
from nas.progress import RunProgress
from nas.run import Run
from nas.show import histories
from search_spaces.errors import ConfigError

MEASURING = 0.02
"""Of a budget of time that measuring may take, and never more than a minute."""


def grant(run: Run, data: SearchData, progress: RunProgress) -> None:
    """Divide the budget, once; a resumed run with another budget gets what that leaves for what is not done yet.

    Raises:
        ConfigError: a budget that cannot hold this recipe, or whose unit it cannot be counted in.
    """
    if run.recipe.budget is None:
        return
    before, budget = Allowance.of(run), read_budget(run.recipe.budget)
    written = run.read_json(FILE)
    if before is not None and written is not None and written["budget"] == run.recipe.budget:
        return
    portions, shares = (
        _foreseen(run, data, budget, progress)
        if before is None or before.budget.unit != budget.unit
        else (before.portions, None)
    )
    # Measuring has taken its part, and so has whatever was done before this budget was known.
    units = divided(portions, budget, _gone(run, before, budget))
    trials = _trials(units, shares) if shares is not None or before is None else _scaled(before, units)
    kept = _begun_after(run, before)
    allowance = Allowance(
        run=run,
        budget=budget,
        portions=portions,
        units={**units, **{f"{name}: scoring": before.units[f"{name}: scoring"] for name in kept if before}},
        trials={**trials, **{name: before.trials[name] for name in kept if before and name in before.trials}},
        closed={name: at for name, at in before.closed.items() if name in kept} if before else {},
    )
    allowance.write()
    progress.say(division(portions, allowance.units, budget))


def _begun_after(run: Run, before: Allowance | None) -> list[str]:
    """Phases after which another has begun: what followed from them would change."""
    if before is None:
        return []
    begun = list(histories(run))
    return begun if run.read_winner() is not None else begun[:-1]


def _trials(units: Mapping[str, int], shares: Mapping[str, float] | None) -> dict[str, int]:
    """Trials of each phase: what is scored, and what its limits reject beside it."""
    return {name: max(1, round(units[f"{name}: scoring"] / share)) for name, share in (shares or {}).items()}


def _scaled(before: Allowance, units: Mapping[str, int]) -> dict[str, int]:
    """The same for another budget, in the proportion of the one before."""
    return {
        name: max(1, round(trials * units[f"{name}: scoring"] / max(1, before.units[f"{name}: scoring"])))
        for name, trials in before.trials.items()
    }


def _foreseen(
    run: Run, data: SearchData, budget: Budget, progress: RunProgress
) -> tuple[tuple[Portion, ...], dict[str, float]]:
    """The works of a run in a budget's unit, and the share of trials that are scored by phase that can be cut."""
    if budget.unit == "seconds":
        with run.books.activity("measuring"):
            plan = make_plan(
                replace(run.recipe, budget=None), progress, seconds=min(MINUTE, MEASURING * budget.amount)
            )
        works, seconds = [row.work for row in plan.rows], seconds_each(plan)
    else:
        works = [one for one in procedure(run.recipe).foreseen(run, data) if isinstance(one, Work)]
        works, seconds = [*works, *(work for work, _ in table_jobs(run, data))], {}
    shares = {
        work.name.partition(": ")[0]: (work.count or 0) / work.trials
        for work in works
        if work.by == "engine" and work.least is not None and work.trials
    }
    return portions_of(works, seconds, budget), shares


def seconds_each(plan: Plan) -> dict[str, float]:
    """Clock seconds of a unit of each work, by its name."""
    return {
        row.work.name: row.here.seconds / max(1, row.work.count or 1)
        for row in plan.rows
        if row.here is not None
    }


def portions_of(works: Sequence[Work], seconds: Mapping[str, float], budget: Budget) -> tuple[Portion, ...]:
    """Works in a budget's unit.

    Args:
        works: in their order.
        seconds: of a unit of each, for a budget of time.
        budget: in whose unit.

    Raises:
        ConfigError: a work that cannot be counted in it.
    """
    each = dict(seconds)
    if budget.unit == "trials":
        each = {work.name: (work.trials or 0) / max(1, work.count or 1) for work in works}
    elif budget.unit == "MACs":
        each = {work.name: work.macs for work in works if work.macs is not None}
    problems = [
        f"budget: found {budget}, but nobody knows what {work.name} takes: give its controller a budget, and count "
        "in hours where a proxy of your own says nothing of multiply-adds"
        for work in works
        if work.count is None or work.name not in each
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return _with_one_table(
        Portion(
            name=work.name,
            unit=work.unit,
            wanted=work.count or 0,
            least=min(work.least if work.least is not None else work.count or 0, work.count or 0),
            each=each[work.name],
        )
        for work in works
    )


def divided(portions: Sequence[Portion], budget: Budget, gone: float = 0.0) -> dict[str, int]:
    """Units of each work within a budget.

    Args:
        portions: the works.
        budget: of all of them.
        gone: what was spent on none of them.

    Raises:
        ConfigError: not even the least of each fits.
    """
    amount = budget.amount * (1 - MARGIN if budget.unit == "seconds" else 1) - gone
    units = divide(portions, amount)
    if units is None:
        raise too_small(budget, portions, gone)
    return units


def _gone(run: Run, before: Allowance | None, budget: Budget) -> float:
    """What was spent on no work before the first division; the works of a run under way count what they have had."""
    if budget.unit != "seconds":
        return 0.0
    spent = by_activity(starts_of(run.directory))
    rest = sum(spent[name].wall for name in (REST, "measuring") if name in spent)
    return run.books.elapsed() if before is None and not spent else rest


def budget_line(plan: Plan, text: str | None) -> str | None:
    """How a plan's works share a budget, or why it cannot hold them; None without one."""
    if text is None:
        return None
    budget = read_budget(text)
    try:
        portions = portions_of([row.work for row in plan.rows], seconds_each(plan), budget)
        return division(portions, divided(portions, budget), budget)
    except ConfigError as error:
        return str(error)


def division(portions: Sequence[Portion], units: Mapping[str, int], budget: Budget) -> str:
    """How a budget is divided, in a sentence."""
    parts = (f"{units[one.name]:,} of {one.wanted:,} {one.unit} of {one.name}" for one in portions)
    return f"budget {budget}: {', '.join(parts)}"


def _with_one_table(portions: Iterable[Portion]) -> tuple[Portion, ...]:
    """The trainings of the final table as one work, for they are carried out seed by seed."""
    found = list(portions)
    table = [one for one in found if one.name.startswith(TABLE)]
    if not table:
        return tuple(found)
    wanted = sum(one.wanted for one in table)
    whole = Portion(
        name=TABLE,
        unit="trainings",
        wanted=wanted,
        least=sum(one.least for one in table),
        each=sum(one.wanted * one.each for one in table) / wanted,
    )
    return (*(one for one in found if one not in table), whole)
