"""Any of Optuna's samplers as a controller, resumable though the sampler keeps state.

Some samplers (NSGA-II, CMA-ES, QMC) keep state in the study they sample from, CMA-ES as a pickle. That
study is here one in memory, rebuilt from the history by asking again: the proposal of trial n comes from a
fresh sampler seeded with (seed, n), after the trials before it were asked for and told in the same way. So
the durable study holds no state, and none that a journal holds is ever read.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.controllers.base import Done, best_architecture, wait_or_done
from nas.distributions import distributions_of
from nas.journal import quiet_optuna
from nas.pareto import cost_of
from nas.trials import History, Record, State
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "brute_force": optuna.samplers.BruteForceSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}
MANY_OBJECTIVES = frozenset({"nsga2", "nsga3"})
"""Samplers made for more than one objective; the others see the score alone."""
_ONE_SEED_FOR_ALL_TRIALS = frozenset({"qmc"})  # its points are one sequence, scrambled once
_STATES: dict[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}


class OptunaSampler:
    """Proposals of an Optuna sampler.

    A sampler may propose a candidate that was tried before; the search loop then repeats its score without
    running the proxy.

    Args:
        space: where to search.
        seed: with the trial's number it seeds the sampler of that trial.
        budget: number of trials, failed ones included.
        sampler: one of :data:`SAMPLERS`.
        options: arguments of the sampler's constructor, except ``seed``.

    Raises:
        ConfigError: an unknown sampler, options it does not take, a space it cannot handle, or a package that
            it needs and that is not installed.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int,
        sampler: str = "tpe",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"sampler: found {sampler!r}; allowed are {sorted(SAMPLERS)}")
        if budget < 1:
            raise ConfigError(f"budget: found {budget}; a sampler needs at least 1 trial")
        self.space, self.seed, self.budget = space, seed, budget
        self.sampler, self.options = sampler, dict(options or {})
        if "seed" in self.options:
            raise ConfigError("options.seed: the search's own seed is used; leave it out")
        self.cost: str | None = None
        try:
            self._propose(_Past(distributions_of(space.parameters), None), 0)
        except (ImportError, TypeError, ValueError) as error:
            raise ConfigError(
                f"sampler {sampler!r} with options {self.options} cannot search {space.name}: {error}"
            ) from error
        self._past = _Past(distributions_of(space.parameters), None)

    def minimising(self, cost: str) -> "OptunaSampler":
        """The same controller with a second objective, for a sampler of :data:`MANY_OBJECTIVES`.

        Args:
            cost: name of an attribute of every trial, the smaller the better.
        """
        twin = copy.copy(self)
        twin.cost, twin._past = cost, _Past(self._past.distributions, cost)
        return twin

    def ask(self, history: History) -> Architecture | Done | None:
        """What the sampler proposes for the next trial."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        settled = next((i for i, record in enumerate(history) if not record.finished), len(history))
        if not self._past.precedes(history[:settled]):
            self._past = _Past(self._past.distributions, self.cost)
        for record in history[len(self._past.records) : settled]:
            self._apply(self._past, record)
        past = self._past
        if settled < len(history):
            # What runs, and what finished after it began, goes into a copy: the order in which overlapping
            # trials finish must not change what later proposals are computed from.
            past = copy.deepcopy(past)
            for record in history[settled:]:
                self._apply(past, record)
        if past.study.exhausted:
            return wait_or_done(history)
        return self._propose(past, len(history))

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)

    def _propose(self, past: "_Past", number: int) -> Architecture:
        """Ask a fresh sampler for trial ``number``, unless ``past`` did so already."""
        if past.asked == number:
            past.study.sampler = self._new_sampler(number)
            with quiet_optuna(logging.ERROR), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                past.study.ask(past.distributions)
            past.asked += 1
        return self.space.decode(past.study.get_trials(deepcopy=False)[number].params)

    def _apply(self, past: "_Past", record: Record) -> None:
        """Ask for the trial of ``record`` as the search did, then tell what came of it."""
        if self._propose(past, record.number).digest != record.digest:
            # Asked beside running trials, by another version, or by hand: what was tried counts.
            past.replace_params(record.number, self.space.encode_candidate(record.candidate))
        past.records.append(record)
        if record.finished:
            past.report(record)
            with quiet_optuna(logging.ERROR):
                past.study.tell(record.number, past.values(record), state=_STATES[record.state])

    def _new_sampler(self, number: int) -> BaseSampler:
        path = () if self.sampler in _ONE_SEED_FOR_ALL_TRIALS else (number,)
        seed = seed_for(self.seed, "sampler", *path) % 2**32  # numpy's generators take 32 bits
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return SAMPLERS[self.sampler](**self.options, seed=seed)


class _ProposalStudy(optuna.Study):
    """A study in memory that notes when its sampler has proposed everything there is."""

    exhausted = False

    def stop(self) -> None:
        self.exhausted = True


class _Past:
    """The study that proposals are computed on, and the records it was built from."""

    def __init__(self, distributions: dict[str, BaseDistribution], cost: str | None) -> None:
        self.distributions, self.cost = distributions, cost
        self.records: list[Record] = []
        self.asked = 0
        self._storage = InMemoryStorage()
        with quiet_optuna():
            beside = [] if cost is None else [StudyDirection.MINIMIZE]
            self._storage.create_new_study([StudyDirection.MAXIMIZE, *beside], "proposals")
        self.study = _ProposalStudy("proposals", self._storage)

    def precedes(self, history: History) -> bool:
        """Whether ``history`` continues what is known here."""
        return len(self.records) <= len(history) and all(
            (ours.digest, ours.state, ours.intermediate, self.values(ours))
            == (theirs.digest, theirs.state, theirs.intermediate, self.values(theirs))
            for ours, theirs in zip(self.records, history, strict=False)
        )

    def values(self, record: Record) -> list[float] | None:
        """What the sampler is told of a scored trial: its score, and its cost where that is an objective."""
        if record.value is None:
            return None
        if self.cost is None:
            return [record.value]
        found = cost_of(record, self.cost)
        assert found is not None, f"trial {record.number} was begun without its {self.cost}"
        return [record.value, found]

    def report(self, record: Record) -> None:
        """Give a trial its intermediate values, for samplers that learn from those that were stopped (TPE)."""
        trial = self.study.get_trials(deepcopy=False)[record.number]
        for step, value in record.intermediate.items():
            self._storage.set_trial_intermediate_value(trial._trial_id, step, value)

    def replace_params(self, number: int, params: Mapping[str, Any]) -> None:
        """Give a running trial the parameters that were really tried."""
        trial = self.study.get_trials(deepcopy=False)[number]
        for name, value in params.items():
            distribution = self.distributions[name]
            internal = distribution.to_internal_repr(value)
            self._storage.set_trial_param(trial._trial_id, name, internal, distribution)
