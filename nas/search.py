"""The loop of every search: ask a controller, score the candidate, tell the study.

Everything else in this package is one of the three. The loop keeps no state: kill it anywhere, call it again
on the same phase, and the trials come out as if it had never stopped.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from nas.controllers.base import Controller, Done
from nas.proxies.base import Proxy, StagedProxy
from nas.pruning import Pruning
from nas.study import Phase
from nas.trials import STOPPED_AT, History, Json, Record, Score, Stopped
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed, RunError


class Measurement(Protocol):
    """What is measured of a whole architecture on this device before it is scored."""

    def attributes(self, architecture: Architecture, history: History) -> Mapping[str, Json]:
        """For the trial; the last one says that all are there. An equal network is not measured again."""
        ...

    def rejection(self, record: Record) -> str | None:
        """The sentence that rejects a measured trial, or None."""
        ...


def search(
    *,
    phase: Phase,
    controller: Controller,
    score: Proxy,
    on_trial: Callable[[Record, History], None] | None = None,
    limits: Callable[[Architecture], str | None] | None = None,
    pruning: Pruning | None = None,
    facts: Callable[[Architecture], Mapping[str, Json]] | None = None,
    measured: Measurement | None = None,
) -> Architecture:
    """Run a phase to its end, from wherever it stands.

    Ctrl-C, a kill or an unlisted error leaves the trial in state ``running``; the next call evaluates it
    again under its own number before it asks for another.

    Args:
        phase: where the trials are kept.
        controller: proposes the candidates and names the winner.
        score: the proxy; the same candidate must get the same score at any time, so a candidate that
            was scored before is not scored again. It raises ``CandidateFailed`` for a failure that
            concerns this candidate only; any other exception stops the search.
        on_trial: called with each finished trial and the history it ends.
        limits: a cheap check of a whole architecture (parameters, MACs); a sentence rejects it before the
            proxy spends anything.
        pruning: decides at each step that the proxy reports whether a candidate goes on; needs a proxy that
            scores in stages.
        facts: what is known of a whole architecture before anything is spent (its cost), kept with its trial.
        measured: what is measured after the limits and before the proxy; written to the trial before anything is
            decided by it, and never measured again, because a clock does not repeat itself.

    Returns:
        The controller's winner.

    Raises:
        RunError: no candidate got a score; the message ends with the last failure.
        TypeError: ``pruning`` beside a proxy that cannot be stopped on the way.
    """
    if pruning is not None and not isinstance(score, StagedProxy):
        raise TypeError(f"{type(score).__name__} does not score in stages; leave pruning out")

    def evaluate(record: Record) -> None:
        finished = _evaluate(
            record, phase=phase, score=score, limits=limits, pruning=pruning, measured=measured
        )
        if on_trial is not None:
            on_trial(finished, phase.history())

    for record in phase.history():
        if not record.finished:
            evaluate(record)
    while not isinstance(asked := controller.ask(phase.history()), Done):
        assert asked is not None, "a controller waits only for running trials, and none is running"
        known = facts(asked) if facts is not None and isinstance(asked, Architecture) else None
        evaluate(phase.begin(asked, known))
    winner = controller.winner(phase.history())
    if winner is None:
        raise RunError(f"phase {phase.name}: no candidate got a score{_last_failure(phase.history())}")
    return winner


def _evaluate(
    record: Record,
    *,
    phase: Phase,
    score: Proxy,
    limits: Callable[[Architecture], str | None] | None,
    pruning: Pruning | None,
    measured: Measurement | None,
) -> Record:
    if limits is not None and isinstance(record.candidate, Architecture):
        rejection = limits(record.candidate)
        if rejection is not None:
            return phase.prune(record.number, rejection)
    if measured is not None and isinstance(record.candidate, Architecture):
        found = measured.attributes(record.candidate, phase.history())
        if list(found)[-1] not in record.attributes:
            record = phase.note(record.number, found)
        rejection = measured.rejection(record)
        if rejection is not None:
            return phase.prune(record.number, rejection)
    for earlier in phase.history():
        if earlier.digest != record.digest:
            continue
        same: dict[str, Json] = {"same_as_trial": earlier.number}
        if earlier.value is not None:
            return phase.finish(record.number, Score(value=earlier.value, attributes=same))
        if earlier.stopped_at is not None:
            # Without its values, which would count twice where candidates are compared.
            same[STOPPED_AT] = earlier.stopped_at
            return phase.prune(record.number, f"as trial {earlier.number}: {earlier.reason}", same)
    try:
        result = _score(record, phase=phase, score=score, pruning=pruning)
    except CandidateFailed as failure:
        return phase.fail(record.number, str(failure))
    except Stopped as stop:
        return phase.prune(record.number, stop.reason, stop.attributes)
    return phase.finish(record.number, result)


def _score(record: Record, *, phase: Phase, score: Proxy, pruning: Pruning | None) -> Score:
    if pruning is None:
        return score(record.candidate)

    def report(step: int, measure: Callable[[], float]) -> None:
        # The value is durable before anything is decided, and the decision follows from what is durable: a kill in
        # between changes nothing.
        if step not in phase.history()[record.number].intermediate:
            phase.report(record.number, step, measure())
        reason = pruning.stops(phase.history(), record.number, step)
        if reason is not None:
            raise Stopped(reason)

    assert isinstance(score, StagedProxy)
    return score.in_stages(record.candidate, report)


def _last_failure(history: History) -> str:
    for record in reversed(history):
        if record.reason is not None:
            return f"; trial {record.number} {record.state}: {record.reason}"
    return "; nothing was tried"
