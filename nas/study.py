"""What was tried: the Optuna studies of a run, one a phase, in one journal of the run directory.

The only truth about a search. ``optuna.load_study`` and ``optuna-dashboard`` open the journal unchanged.
Two rules make a killed search resumable trial for trial:

* a candidate enters in one record, whole (``add_trial`` in state RUNNING); its result is one more (``tell``),
  so every prefix of the journal is a state that a search can continue from;
* proposals are never computed on the durable study: controllers see :data:`History`, plain data, and what
  Optuna's samplers keep for themselves stays in memory. Nothing in a journal is ever unpickled.
"""

import datetime
import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nas.distributions import distributions_of
from nas.journal import JOURNAL, Guard, open_storage, quiet_optuna
from nas.trials import (
    BESIDE,
    BY_GROUP,
    LOST,
    LOST_SECONDS,
    ROUND,
    STAGE,
    History,
    Json,
    Record,
    Score,
    State,
    Trials,
    check_attributes,
)
from search_spaces.architecture import Architecture, Candidate, Genes, Prefix, digest_of
from search_spaces.errors import CandidateFailed, ConfigError, InvalidArchitecture, RunError
from search_spaces.space import SearchSpace
from search_spaces.targets import FOLDER

__all__ = ["History", "Json", "Phase", "Record", "Score", "State", "Study", "record_of", "versions"]

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "running",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
# Keys of a trial's user attributes that the study writes itself.
_ARCHITECTURE, _PREFIX, _DIGEST = "architecture", "prefix", "digest"
_SCORE, _REASON, _KEPT = "score", "reason", "kept"
_RESERVED = frozenset({_ARCHITECTURE, _PREFIX, _DIGEST, _SCORE, _REASON, _KEPT})
_LOOP = frozenset({BESIDE, BY_GROUP, ROUND, STAGE, LOST, LOST_SECONDS})
"""Keys that the loop of a search writes, so that no score may have them."""


class Phase:
    """One search of a run; made by :meth:`Study.phase`."""

    def __init__(
        self,
        *,
        name: str,
        space: SearchSpace,
        seed: int,
        durable: optuna.Study,
        storage: BaseStorage,
        guard: Guard | None,
        home: Path,
    ) -> None:
        self.name = name
        self.space = space
        self.seed = seed
        self._study_id = durable._study_id
        self._storage = storage
        self._home = home
        self._guard = guard  # kept from being collected while the phase may still write
        self._distributions = distributions_of(space.parameters)
        self._ids: list[int] = []
        self._records: list[Record] = []
        self._numbers: dict[str, int] = {}
        self._running: set[int] = set()
        self._history = Trials(self._records, self._numbers)
        for trial in durable.get_trials(deepcopy=False):
            self._check_member(self._read(trial))

    def history(self) -> Trials:
        """All trials as they stand at any time. This object is their only writer, so none is read twice."""
        return self._history

    def record(self, number: int) -> Record:
        """One trial as it stands."""
        return self._records[number]

    def running(self) -> list[Record]:
        """Those that have no end yet, by number."""
        return [self._records[number] for number in sorted(self._running)]

    def _read(self, trial: FrozenTrial, known: Candidate | None = None) -> Record:
        """Note a trial as it is in the storage now.

        Args:
            trial: from the storage.
            known: its candidate, where this process has written it; read from the trial where None.
        """
        record = record_of(trial, self.name, known)
        if known is None:
            record = _at(record, self._home)
        number = record.number
        if number == len(self._records):
            self._ids.append(trial._trial_id)
            self._records.append(record)
            self._numbers.setdefault(record.digest, number)
        else:
            self._records[number] = record
        (self._running.discard if record.finished else self._running.add)(number)
        return record

    def _again(self, number: int) -> Record:
        """Read a trial that was just written."""
        return self._read(self._storage.get_trial(self._ids[number]), self._records[number].candidate)

    def begin(self, candidate: Candidate, attributes: Mapping[str, Json] | None = None) -> Record:
        """Write a candidate down, whole and in one durable record, before anything is spent on it.

        Args:
            candidate: a member of the space, or a decided prefix of its genes.
            attributes: further facts to keep (cost, what it grew from), ready for JSON.

        Returns:
            The new record, in state ``running``.

        Raises:
            InvalidArchitecture: a candidate that the space does not contain.
        """
        params = self.space.encode_candidate(candidate)
        attributes = dict(attributes or {})
        check_attributes(attributes, what="a candidate's attributes")
        _refuse(attributes, _RESERVED)
        trial = FrozenTrial(
            number=-1,
            trial_id=-1,  # both are given by the storage
            state=TrialState.RUNNING,
            value=None,
            intermediate_values={},
            system_attrs={},
            datetime_start=datetime.datetime.now(),
            datetime_complete=None,
            params=dict(params),
            distributions={name: self._distributions[name] for name in params},
            user_attrs={**_candidate_attributes(candidate), **attributes},
        )
        written = self._storage.get_trial(self._storage.create_new_trial(self._study_id, trial))
        if written.number != len(self._records):
            # Somebody else wrote to this study; if it was no search of ours, this says so.
            for other in self._storage.get_all_trials(self._study_id, deepcopy=False)[len(self._records) :]:
                self._check_member(self._read(other))
            return self._records[-1]
        return self._read(written, candidate)

    def keep(self, number: int, outcome: Score | CandidateFailed) -> Record:
        """Write the score or failure of a trial that goes on running until earlier ones have theirs."""
        if isinstance(outcome, Score):
            _refuse(outcome.attributes, _RESERVED | _LOOP)
            kept: dict[str, Json] = {"value": outcome.value, "attributes": dict(outcome.attributes)}
        else:
            kept = {"failed": str(outcome), "spent": outcome.spent}
        self._set_attribute(number, _KEPT, kept)
        return self._again(number)

    def finish(self, number: int, score: Score) -> Record:
        """Write the score of a running trial."""
        if score.attributes:
            _refuse(score.attributes, _RESERVED | _LOOP)
            self._set_attribute(number, _SCORE, dict(score.attributes))
        return self._tell(number, score.value, TrialState.COMPLETE)

    def fail(self, number: int, reason: str, spent: Mapping[str, Json] | None = None) -> Record:
        """Write that a running trial failed, and why, in a sentence.

        Args:
            number: of the trial.
            reason: one sentence.
            spent: what it has cost, ready for JSON.
        """
        if spent:
            self._set_attribute(number, _SCORE, dict(spent))
        self._set_attribute(number, _REASON, reason)
        return self._tell(number, None, TrialState.FAIL)

    def report(self, number: int, step: int, value: float) -> Record:
        """Write the score of a running trial after ``step`` training steps, in one durable record."""
        if not math.isfinite(value):
            raise CandidateFailed(f"the proxy's score at step {step} is {value}; it must be a finite number")
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)
        return self._again(number)

    def note(self, number: int, attributes: Mapping[str, Json]) -> Record:
        """Write what was found out about a running trial, one durable record a name, in their order."""
        check_attributes(attributes, what="a candidate's attributes")
        _refuse(attributes, _RESERVED)
        for key, value in attributes.items():
            self._set_attribute(number, key, value)
        return self._again(number)

    def prune(self, number: int, reason: str, attributes: Mapping[str, Json] | None = None) -> Record:
        """Write that a running trial ends without a score: rejected by a cheap limit, or stopped on the way.

        Args:
            number: of the trial.
            reason: one sentence.
            attributes: what was spent until now, ready for JSON.
        """
        if attributes:
            _refuse(attributes, _RESERVED | _LOOP)
            self._set_attribute(number, _SCORE, dict(attributes))
        self._set_attribute(number, _REASON, reason)
        return self._tell(number, None, TrialState.PRUNED)

    def _tell(self, number: int, value: float | None, state: TrialState) -> Record:
        reached = self._records[number].intermediate
        if state is TrialState.PRUNED and reached:
            value = reached[max(reached)]  # as Optuna's own tell does
        values = None if value is None else [value]
        # Not through the study's tell, which looks at all trials for the sake of samplers that this study never has.
        self._storage.set_trial_state_values(self._ids[number], state, values)
        return self._again(number)

    def _set_attribute(self, number: int, key: str, value: Any) -> None:
        # Before the tell, never after: a trial that reads as finished has all of its attributes.
        self._storage.set_trial_user_attr(self._ids[number], key, value)

    def _check_member(self, record: Record) -> None:
        try:
            self.space.encode_candidate(record.candidate)
        except InvalidArchitecture as error:
            raise RunError(
                f"phase {self.name}, trial {record.number}: {record.candidate} is not in the space "
                f"{self.space.name} ({error}); the recipe or the journal was changed after the search began"
            ) from error


class Study:
    """All phases of a run; open it with :meth:`open`, best in a ``with`` statement."""

    def __init__(self, *, storage: BaseStorage, directory: Path, prefix: str, guard: Guard | None) -> None:
        self.directory = directory
        self._storage = storage
        self._prefix = prefix
        self._guard = guard

    @classmethod
    def open(cls, directory: Path, url: str | None = None, *, read_only: bool = False) -> Self:
        """Open the study of a run directory, mended where a kill left it torn.

        Args:
            directory: of the run; must exist.
            url: a database instead of the journal (``sqlite:///...``, ``postgresql://...``); its studies are
                then called ``<name of the directory>/<phase>``, so that runs can share it.
            read_only: look on without mending or locking, also while a search is writing.

        Raises:
            RunError: another process is writing, the journal is damaged, or there is none to read.
            ConfigError: the database cannot be opened.
        """
        if not directory.is_dir():
            raise RunError(f"{directory}: no such run directory; `nas search RECIPE --run DIR` makes one")
        path = directory / JOURNAL
        if read_only and url is None and not path.exists():
            raise RunError(f"{directory}: no {JOURNAL} in it, so no search was started there")
        guard = None if read_only else Guard(directory)
        try:
            if url is None:
                storage: BaseStorage = open_storage(path, read_only=read_only)
                return cls(storage=storage, directory=directory, prefix="", guard=guard)
            storage = open_database(url)
            return cls(
                storage=storage, directory=directory, prefix=f"{directory.resolve().name}/", guard=guard
            )
        except BaseException:
            if guard is not None:
                guard.release()
            raise

    def phase(self, name: str, space: SearchSpace, seed: int) -> Phase:
        """Create a phase, or load it with all of its trials.

        Args:
            name: of the phase, and of its Optuna study.
            space: where it searches.
            seed: of the phase; proposals depend on it and on the trial's number only.

        Raises:
            RunError: the phase exists with another space or seed, or holds trials that are not ours.
        """
        full_name = self._prefix + name
        with quiet_optuna():
            if full_name not in optuna.get_all_study_names(self._storage):
                optuna.create_study(study_name=full_name, storage=self._storage, direction="maximize")
            # A durable study never samples: of all samplers this one does nothing when a result is told.
            sampler = optuna.samplers.RandomSampler(seed=0)
            durable = optuna.load_study(study_name=full_name, storage=self._storage, sampler=sampler)
        _describe(durable, name, space, seed)
        phase = Phase(
            name=name,
            space=space,
            seed=seed,
            durable=durable,
            storage=self._storage,
            guard=self._guard,
            home=self.directory / FOLDER,
        )
        return phase

    def phase_names(self) -> tuple[str, ...]:
        """Names of the phases begun so far, oldest first."""
        names = (study.study_name for study in self._storage.get_all_studies())
        return tuple(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))

    def records(self, phase: str) -> History:
        """The trials of a phase as they stand, without its space (for showing a run).

        Raises:
            RunError: no such phase.
        """
        if phase not in self.phase_names():
            raise RunError(f"{self.directory}: no phase {phase!r}; found {list(self.phase_names())}")
        study_id = self._storage.get_study_id_from_name(self._prefix + phase)
        return tuple(
            _at(record_of(trial, phase), self.directory / FOLDER)
            for trial in self._storage.get_all_trials(study_id, deepcopy=False)
        )

    def close(self) -> None:
        """Let another process continue this run."""
        if self._guard is not None:
            self._guard.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _at(record: Record, home: Path) -> Record:
    """The record with the file of a person's own family where this run keeps it."""
    if not isinstance(record.candidate, Architecture):
        return record
    placed = record.candidate.at(home)
    return record if placed is record.candidate else replace(record, candidate=placed)


def record_of(trial: FrozenTrial, phase: str, known: Candidate | None = None) -> Record:
    """Read a trial back as plain data; a score's attributes count only once the trial has ended.

    Args:
        trial: from a storage.
        phase: its name.
        known: the candidate, where it need not be read and checked again.

    Raises:
        RunError: a trial that this toolkit did not write, or that was changed afterwards.
    """
    attributes = trial.user_attrs
    where = f"phase {phase}, trial {trial.number}"
    if trial.state not in _STATES:
        raise RunError(f"{where}: state {trial.state.name}; trials enter a study only through a search")
    try:
        candidate = _candidate_of(attributes) if known is None else known
        digest = str(attributes[_DIGEST])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{where}: not written by this toolkit ({type(error).__name__}: {error})") from error
    if digest != candidate.digest:
        raise RunError(f"{where}: digest {digest} does not belong to {candidate}; the journal was changed")
    state = _STATES[trial.state]
    extra = {key: value for key, value in attributes.items() if key not in _RESERVED}
    value: float | None = None
    if not all(math.isfinite(found) for found in trial.intermediate_values.values()):
        raise RunError(
            f"{where}: found intermediate scores {trial.intermediate_values}; the journal was changed"
        )
    kept = attributes.get(_KEPT) if state == "running" else None
    measured = attributes.get(_SCORE, {})
    if state in ("pruned", "failed") and isinstance(measured, dict):
        extra |= measured
    if state == "complete":
        match trial.values:
            case [int() | float() as found] if math.isfinite(found) and isinstance(measured, dict):
                value = float(found)
                extra |= measured
            case _:
                raise RunError(
                    f"{where}: found scores {trial.values!r} with {measured!r}; a complete trial has one "
                    "finite score, the journal was changed"
                )
    return Record(
        number=trial.number,
        phase=phase,
        candidate=candidate,
        digest=digest,
        value=value,
        state=state,
        reason=str(attributes.get(_REASON, "no reason was written"))
        if state in ("failed", "pruned")
        else None,
        attributes=extra,
        intermediate=dict(sorted(trial.intermediate_values.items())),
        kept=None if kept is None else _outcome_of(kept),
    )


def _outcome_of(kept: Mapping[str, Any]) -> Score | CandidateFailed:
    if "failed" in kept:
        return CandidateFailed(kept["failed"], kept.get("spent"))
    return Score(value=kept["value"], attributes=kept["attributes"])


def _refuse(attributes: Mapping[str, Json], names: frozenset[str]) -> None:
    if taken := names & set(attributes):
        raise TypeError(f"attributes named {sorted(taken)} are written by the search; choose other names")


def open_database(url: str) -> BaseStorage:
    """Optuna's storage in a database.

    Raises:
        ConfigError: no URL, no driver for it, or no connection.
    """
    from sqlalchemy.exc import SQLAlchemyError  # slow to import, and few runs have a database

    try:
        with quiet_optuna():
            return optuna.storages.RDBStorage(url)
    except (ImportError, SQLAlchemyError) as error:
        shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
        raise ConfigError(
            f"storage: cannot open the database {shown!r}: {str(error).splitlines()[0]}; write for example "
            "sqlite:///study.db, install the driver of another database, or leave storage out"
        ) from error


def versions() -> dict[str, str]:
    """Versions that a search's proposals depend on."""
    return {
        "python": platform.python_version(),
        "vertebra": _version("vertebra"),
        "optuna": _version("optuna"),
        "numpy": _version("numpy"),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _describe(durable: optuna.Study, name: str, space: SearchSpace, seed: int) -> None:
    """Write what the phase is, or compare; a kill between the records leaves some to be written now."""
    parameters = {key: repr(parameter) for key, parameter in space.parameters.items()}
    expected = {"space": space.name, "space_digest": digest_of(list(parameters.items())), "seed": seed}
    found = durable.user_attrs
    for key, value in expected.items():
        if key not in found:
            durable.set_user_attr(key, value)
        elif found[key] != value:
            raise RunError(
                f"phase {name} was begun with {key} {found[key]!r} and the recipe now says {value!r}; "
                "resume with the recipe it was begun with, or search in a new run directory"
            )
    sessions = found.get("versions", [])
    if not sessions or sessions[-1] != versions():
        durable.set_user_attr("versions", [*sessions, versions()])


def _candidate_attributes(candidate: Candidate) -> dict[str, Any]:
    if isinstance(candidate, Prefix):
        body = {"space": candidate.space, "genes": json.loads(json.dumps(dict(candidate.genes)))}
        return {_PREFIX: body, _DIGEST: candidate.digest}
    return {_ARCHITECTURE: candidate.to_dict(), _DIGEST: candidate.digest}


def _candidate_of(attributes: Mapping[str, Any]) -> Candidate:
    if _PREFIX in attributes:
        prefix = attributes[_PREFIX]
        return Prefix(space=str(prefix["space"]), genes=Genes(prefix["genes"]))
    return Architecture.from_dict(attributes[_ARCHITECTURE])
