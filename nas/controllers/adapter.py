"""Our controllers inside anybody's Optuna study.

``optuna.create_study(sampler=ControllerSampler(...))`` proposes whole candidates of a search space; the
objective suggests the space's parameters (``distributions_of(space.parameters)``) and decodes them with
``space.decode(trial.params)``. Optuna's own suites for samplers run over every controller this way.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.controllers.base import Controller
from nas.distributions import distributions_of
from nas.trials import History, Record
from search_spaces.architecture import Architecture
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace


class ControllerSampler(BaseSampler):
    """A sampler that proposes what a controller asks for.

    Parameters that are no genes of the space, and all parameters once the controller is done or waits, get
    an independent draw seeded by (seed, trial number, name).

    Args:
        controller: proposes whole architectures of ``space``; a fresh one a sampler.
        space: whose parameters the study's objective suggests.
        seed: of the independent draws.
    """

    def __init__(self, controller: Controller, *, space: SearchSpace, seed: int) -> None:
        self._controller = controller
        self._space = space
        self._seed = seed
        self._distributions = distributions_of(space.parameters)
        self._proposed: dict[int, Architecture] = {}  # of trials that have not suggested their parameters yet

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002 - the signature is Optuna's
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """The parameters of the space, always."""
        return dict(self._distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The controller's next candidate, as parameters.

        Raises:
            ValueError: a study of several objectives; a controller maximises one score.
        """
        if len(study.directions) > 1:
            raise ValueError(
                f"{type(self._controller).__name__} maximises one score; this study has "
                f"{len(study.directions)} objectives"
            )
        asked = self._controller.ask(self._history(study, trial))
        if not isinstance(asked, Architecture):
            return {}
        self._proposed[trial.number] = asked
        params = self._space.encode(asked)
        return {name: params[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw that depends on (seed, trial number, name) only."""
        seed = seed_for(self._seed, "independent", trial.number, param_name) % 2**32
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,  # noqa: ARG002 - the signature is Optuna's
        trial: FrozenTrial,
        state: TrialState,  # noqa: ARG002
        values: Sequence[float] | None,  # noqa: ARG002
    ) -> None:
        """Forget what is in the study from now on."""
        self._proposed.pop(trial.number, None)

    def _history(self, study: optuna.Study, current: FrozenTrial) -> History:
        sign = -1.0 if study.direction is StudyDirection.MINIMIZE else 1.0
        records: list[Record] = []
        for trial in study.get_trials(deepcopy=False):
            if trial.number == current.number or trial.state is TrialState.WAITING:
                continue
            if all(name in trial.params for name in self._distributions):
                candidate = self._space.decode({name: trial.params[name] for name in self._distributions})
            elif not trial.state.is_finished() and trial.number in self._proposed:
                candidate = self._proposed[trial.number]
            else:
                continue
            value = (
                sign * trial.value if trial.state is TrialState.COMPLETE and trial.value is not None else None
            )
            records.append(
                Record(
                    number=len(records),
                    phase=study.study_name,
                    candidate=candidate,
                    digest=candidate.digest,
                    value=value,
                    state="running"
                    if not trial.state.is_finished()
                    else "failed"
                    if value is None
                    else "complete",
                )
            )
        return tuple(records)
