"""A run's budget divided over its works, before anything is spent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.budget import Budget, Portion, divide, read_budget, too_small
from nas.ledger import REST, by_activity, starts_of
from nas.methods.budgeting import MARGIN, TABLE, Allowance
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
    """Divide the budget, once; a resumed run with another one, or with other seeds, has it divided anew.

    Phases on which later ones build keep what they had, for what followed from them would change; and whether the phase
    under way draws at random stays as it was begun.

    Raises:
        ConfigError: a budget that cannot hold this recipe, or whose unit it cannot be counted in.
    """
    before, text = Allowance.of(run), run.recipe.budget
    if before is None and text is None:
        return
    key = _key(run)
    if before is not None and (before.text, list(before.key)) == (text, key):
        return
    trials = histories(run)
    settled = list(trials) if run.read_winner() is not None else list(trials)[:-1]
    if text is None:
        assert before is not None, "there is a budget to be taken away"
        _without(before, settled).write()
        return
    budget = read_budget(text)
    each = None
    if before is not None and _same_units(before, budget, key):
        each = {one.name: one.each for one in before.portions}
    works, portions = _foreseen(run, data, budget, progress, each)
    spent = {f"{name}: scoring": sum(one.value is not None for one in trials[name]) for name in settled}
    fixed = [
        replace(one, wanted=spent[one.name], least=spent[one.name]) if one.name in spent else one
        for one in portions
    ]
    # Measuring has taken its part, and so has whatever was done before this budget was known.
    units = divided(fixed, budget, _gone(run, before, budget), begun=bool(trials))
    caps, drawn = _caps(works, units)
    for name in settled:
        caps.pop(name, None)
        drawn.discard(name)
        if before is not None and name in before.trials:
            caps[name] = before.trials[name]
    for name, history in trials.items():
        if name in caps:
            caps[name] = max(caps[name], len(history))
        if before is None or name not in before.drawn:
            drawn.discard(name)
        else:
            drawn.add(name)
    allowance = Allowance(
        run=run,
        text=text,
        key=key,
        portions=portions,
        units=units,
        trials=caps,
        drawn=sorted(drawn),
        closed={name: at for name, at in before.closed.items() if name in settled} if before else {},
    )
    allowance.write()
    progress.say(division(portions, units, budget))


def _key(run: Run) -> list[Any]:
    """What a division depends on beside the budget and what cannot be changed in a run."""
    retrain = run.recipe.retrain
    seeds = [] if retrain is None else [retrain.seeds, retrain.rival_seeds]
    return [run.recipe.engine, run.recipe.workers, run.recipe.threads, *seeds]


def _same_units(before: Allowance, budget: Budget, key: Sequence[Any]) -> bool:
    """Whether a unit of every work takes what it took, so that nothing has to be measured again."""
    if before.budget is None or before.budget.unit != budget.unit:
        return False
    return budget.unit != "seconds" or list(before.key[:3]) == list(key[:3])


def _without(before: Allowance, settled: Sequence[str]) -> Allowance:
    """The same without a budget: only what later phases build on stays as it is."""
    return replace(
        before,
        text=None,
        key=(),
        units={one.name: one.wanted for one in before.portions},
        trials={name: count for name, count in before.trials.items() if name in settled},
        closed={name: at for name, at in before.closed.items() if name in settled},
    )


def _caps(works: Sequence[Work], units: Mapping[str, int]) -> tuple[dict[str, int], set[str]]:
    """Trials of every phase that can be cut, what its limits reject included, and those that are cut."""
    caps, cut = {}, set()
    for work in works:
        if work.by == "engine" and work.least is not None and work.trials and work.count:
            phase = work.name.partition(": ")[0]
            caps[phase] = max(1, round(units[work.name] * work.trials / work.count))
            if work.exhaustive and caps[phase] < work.trials:
                # The first so many in the order of the genes would all be alike.
                cut.add(phase)
    return caps, cut


def _foreseen(
    run: Run, data: SearchData, budget: Budget, progress: RunProgress, each: Mapping[str, float] | None
) -> tuple[list[Work], tuple[Portion, ...]]:
    """The works of a run, and the same in a budget's unit.

    Args:
        run: whose.
        data: its images.
        budget: in whose unit.
        progress: listens to the measuring.
        each: what a unit of each work takes, where that is known.
    """
    if each is None and budget.unit == "seconds":
        with run.books.activity("measuring"):
            plan = make_plan(
                replace(run.recipe, budget=None), progress, seconds=min(MINUTE, MEASURING * budget.amount)
            )
        works = [row.work for row in plan.rows]
        return works, portions_of(works, seconds_each(plan), budget)
    works = [one for one in procedure(run.recipe).foreseen(run, data) if isinstance(one, Work)]
    works += [work for work, _ in table_jobs(run, data)]
    if each is None:
        return works, portions_of(works, {}, budget)
    known = {work.name: each.get(work.name, each.get(TABLE)) for work in works}
    found = {name: value for name, value in known.items() if value is not None}
    return works, portions_of(works, found, budget, measured=True)


def seconds_each(plan: Plan) -> dict[str, float]:
    """Clock seconds of a unit of each work, by its name."""
    return {
        row.work.name: row.here.seconds / max(1, row.work.count or 1)
        for row in plan.rows
        if row.here is not None
    }


def portions_of(
    works: Sequence[Work], seconds: Mapping[str, float], budget: Budget, *, measured: bool = False
) -> tuple[Portion, ...]:
    """Works in a budget's unit.

    Args:
        works: in their order.
        seconds: of a unit of each, for a budget of time.
        budget: in whose unit.
        measured: these are what a unit takes in the budget's unit, whatever that is.

    Raises:
        ConfigError: a work that cannot be counted in it.
    """
    each = dict(seconds)
    if measured:
        pass
    elif budget.unit == "trials":
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


def divided(
    portions: Sequence[Portion], budget: Budget, gone: float = 0.0, *, begun: bool = False
) -> dict[str, int]:
    """Units of each work within a budget.

    Args:
        portions: the works.
        budget: of all of them.
        gone: what was spent on none of them.
        begun: whether the run is under way.

    Raises:
        ConfigError: not even the least of each fits.
    """
    amount = budget.amount * (1 - MARGIN if budget.unit == "seconds" else 1) - gone
    units = divide(portions, amount)
    if units is None:
        raise too_small(budget, portions, gone, begun=begun)
    return units


def _gone(run: Run, before: Allowance | None, budget: Budget) -> float:
    """What was spent on no work before the first division; the works of a run under way count what they have had."""
    if budget.unit != "seconds":
        return 0.0
    if before is None and not histories(run):
        return run.books.elapsed()
    spent = by_activity(starts_of(run.directory))
    return sum(spent[name].wall for name in (REST, "measuring") if name in spent)


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
