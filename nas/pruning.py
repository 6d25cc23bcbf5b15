"""Who goes on at a rung: any of Optuna's pruners, deciding from the journal alone.

Some pruners keep state in the study they judge (successive halving notes which rungs a trial completed). That
study is here one in memory, rebuilt from the history by reporting and judging again, trial by trial and step by
step. So a decision is a function of the values written before it: a search that was killed between a report and
its decision decides as if it had not been.
"""

import copy
import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from pydantic import TypeAdapter, ValidationError

from nas.journal import quiet_optuna
from nas.recipes.one_search import RungsRecipe
from nas.trials import History, Record, State
from search_spaces.errors import ConfigError

PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "hyperband": optuna.pruners.HyperbandPruner,
    "median": optuna.pruners.MedianPruner,
    "nop": optuna.pruners.NopPruner,
    "patient": optuna.pruners.PatientPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "threshold": optuna.pruners.ThresholdPruner,
    # Not Wilcoxon's: its steps are instances of one problem, ours are the progress of one training.
}
_STATES: dict[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}
_WRAPPED = "wrapped_pruner"


class Pruning:
    """Decides at each rung whether a trial goes on.

    Args:
        recipe: pruner and rungs.
        total_steps: of a whole training.
        phase: its name; Hyperband deals trials out to its brackets by it.

    Raises:
        ConfigError: an unknown pruner or option, or rungs that do not fit; all problems at once.
    """

    def __init__(self, recipe: RungsRecipe, *, total_steps: int, phase: str) -> None:
        self.recipe, self.total_steps, self.phase = recipe, total_steps, phase
        self.rungs = rungs_within(recipe, total_steps)
        self._past = self._nothing()

    def stops(self, history: History, number: int, step: int) -> str | None:
        """Why a trial ends at a step, in a sentence, or None when it goes on.

        Args:
            history: of the phase, with the trial's value at ``step`` in it.
            number: of the trial.
            step: one of its rungs.
        """
        if not self._decided(history, step)[number, step]:
            return None
        value = history[number].intermediate[step]
        there = [record.intermediate[step] for record in history if step in record.intermediate]
        place = 1 + sum(other > value for other in there)
        return (
            f"stopped at step {step} of {self.total_steps} by {self.recipe.pruner}: {value:.2f} AP, "
            f"place {place} of {len(there)} there"
        )

    def decisions(self, history: History) -> Mapping[tuple[int, int], bool]:
        """Whether a trial is stopped at a step, by its number and each step that it reached, decided again."""
        self._past = self._nothing()
        return dict(self._decided(history, self.total_steps))

    def _decided(self, history: History, until: int) -> Mapping[tuple[int, int], bool]:
        """All decisions of a history, those of a round under way until a step only."""
        if not self._past.precedes(history):
            self._past = self._nothing()
        for _, together in groupby(history, key=lambda record: record.round):
            self._past.follow(tuple(together), until)
        return self._past.decisions

    def _nothing(self) -> "_Past":
        return _Past(make_pruner(self.recipe, self.total_steps), self.phase)


def rungs_within(recipe: RungsRecipe, total_steps: int) -> tuple[int, ...]:
    """Steps of the rungs, rising, all before the end of a training.

    Raises:
        ConfigError: a rung at the end of a training or after it, where nothing is left to save.
    """
    if recipe.steps is not None:
        if recipe.steps[-1] >= total_steps:
            raise ConfigError(
                f"steps: found {list(recipe.steps)}; allowed are steps before the end of the short training, "
                f"which has {total_steps}"
            )
        return recipe.steps
    assert recipe.first is not None, "the recipe has one of the two"
    if recipe.first >= total_steps:
        raise ConfigError(
            f"first: found {recipe.first}; allowed is a step before the end of the short training, which has "
            f"{total_steps}"
        )
    rungs = [recipe.first]
    while rungs[-1] * recipe.reduction < total_steps:
        rungs.append(rungs[-1] * recipe.reduction)
    return tuple(rungs)


def make_pruner(recipe: RungsRecipe, total_steps: int) -> BasePruner:
    """The recipe's pruner.

    Raises:
        ConfigError: an unknown pruner, an option it does not take, or a value that it refuses.
    """
    given: dict[str, Any] = {}
    if recipe.steps is None:
        given = {
            "min_resource": recipe.first,
            "reduction_factor": recipe.reduction,
            "max_resource": total_steps,
        }
    return _make(recipe.pruner, recipe.options, given, named="pruner", place="options")


def _make(
    name: str, options: Mapping[str, Any], given: Mapping[str, Any], *, named: str, place: str
) -> BasePruner:
    if name not in PRUNERS:
        raise ConfigError(f"{named}: found {name!r}; {_allowed(name, PRUNERS)}")
    accepted = inspect.signature(PRUNERS[name], eval_str=True).parameters
    settings = {key: value for key, value in given.items() if key in accepted}
    problems = []
    for key, value in options.items():
        where = f"{place}.{key}"
        if key not in accepted:
            problems.append(f"{where}: {name} has no such option; {_allowed(key, accepted)}")
        elif key in settings:
            problems.append(
                f"{where}: found {value!r}; it follows from first, reduction and train, leave it out"
            )
        elif key == _WRAPPED:
            inner = dict(value) if isinstance(value, Mapping) else {"name": value}
            wrapped = inner.pop("name", None)
            if value is None:
                settings[key] = None
            elif not isinstance(wrapped, str):
                problems.append(
                    f"{where}: found {value!r}; allowed are null, a name, or {{name: ..., options}}"
                )
            else:
                settings[key] = _make(wrapped, inner, given, named=f"{where}.name", place=where)
        else:
            try:
                settings[key] = TypeAdapter(accepted[key].annotation).validate_python(value, strict=True)
            except ValidationError as error:
                problems.append(f"{where}: found {value!r}; {error.errors()[0]['msg'].lower()}")
    if _WRAPPED in accepted:
        settings.setdefault(_WRAPPED, None)
    problems += [
        f"{place}.{key}: {name} needs it"
        for key, parameter in accepted.items()
        if parameter.default is inspect.Parameter.empty and key not in {*settings, *options}
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return PRUNERS[name](**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: found {dict(options)}; {name}: {error}") from error


def _allowed(found: str, names: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(found, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed are {sorted(names)}"


class _Past:
    """The study that a pruner judges, with every decision it has made."""

    def __init__(self, pruner: BasePruner, phase: str) -> None:
        self.decisions: dict[tuple[int, int], bool] = {}
        self._pruner = pruner
        self._records: list[Record] = []
        self._storage = InMemoryStorage()
        with quiet_optuna():
            self._study_id = self._storage.create_new_study([StudyDirection.MAXIMIZE], phase)
        self._study = optuna.Study(phase, self._storage)

    def precedes(self, history: History) -> bool:
        """Whether ``history`` continues what is known here."""
        return len(self._records) <= len(history) and all(
            ours is theirs
            or (ours.digest == theirs.digest and ours.intermediate.items() <= theirs.intermediate.items())
            for ours, theirs in zip(self._records, history, strict=False)
        )

    def follow(self, together: History, until: int) -> None:
        """Report what the trials of a round reported since, let the pruner judge each step, and end those that ended.

        Always in one order, whatever is known already: step by step the trials by number, then those that were stopped
        there; when all have ended, the others. Of a round under way, later steps than ``until`` wait: only some of its
        trials may have reached them, in any order.
        """
        known = len(self._records)
        if together[-1].number < known and all(self._records[one.number] is one for one in together):
            return
        for record in together[max(0, known - together[0].number) :]:
            self._storage.create_new_trial(self._study_id)
            self._records.append(replace(record, state="running", intermediate={}))
        ended = all(record.finished for record in together)
        steps = {step for record in together for step in record.intermediate if ended or step <= until}
        for step in sorted(steps):
            for record in together:
                if step in record.intermediate and step not in self._records[record.number].intermediate:
                    self._judge(record, step)
            for record in together:
                if record.stopped_at == step and record.intermediate:
                    self._end(record)
        if ended:
            for record in together:
                self._end(record)

    def _judge(self, record: Record, step: int) -> None:
        value = record.intermediate[step]
        self._storage.set_trial_intermediate_value(self._trial_id(record), step, value)
        seen = self._records[record.number]
        self._records[record.number] = replace(seen, intermediate={**seen.intermediate, step: value})
        # A copy, for a pruner that would change it; it was read before the pruner's notes, as Optuna reads it.
        trial = copy.deepcopy(self._storage.get_trial(self._trial_id(record)))
        with quiet_optuna():
            self.decisions[record.number, step] = self._pruner.prune(self._study, trial)

    def _end(self, record: Record) -> None:
        if self._records[record.number].finished:
            self._records[record.number] = record
            return
        self._records[record.number] = record
        values = [record.value] if record.value is not None else None
        if record.state == "pruned" and record.intermediate:
            values = [record.intermediate[max(record.intermediate)]]  # as Optuna tells a pruned trial
        self._storage.set_trial_state_values(self._trial_id(record), _STATES[record.state], values)

    def _trial_id(self, record: Record) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, record.number)
