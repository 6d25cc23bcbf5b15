"""The loop of every search: ask a controller, score the candidate, tell the study.

Everything else in this package is one of the three. The loop keeps no state: kill it anywhere, call it again
on the same phase, and the trials come out as if it had never stopped.
"""

from collections.abc import Callable

from nas.controllers.base import Controller, Done
from nas.proxies.base import Proxy
from nas.study import Phase
from nas.trials import History, Record, Score
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed, RunError


def search(
    *,
    phase: Phase,
    controller: Controller,
    score: Proxy,
    on_trial: Callable[[Record, History], None] | None = None,
    limits: Callable[[Architecture], str | None] | None = None,
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

    Returns:
        The controller's winner.

    Raises:
        RunError: no candidate got a score; the message ends with the last failure.
    """

    def evaluate(record: Record) -> None:
        finished = _evaluate(record, phase=phase, score=score, limits=limits)
        if on_trial is not None:
            on_trial(finished, phase.history())

    for record in phase.history():
        if not record.finished:
            evaluate(record)
    while not isinstance(asked := controller.ask(phase.history()), Done):
        assert asked is not None, "a controller waits only for running trials, and none is running"
        evaluate(phase.begin(asked))
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
) -> Record:
    if limits is not None and isinstance(record.candidate, Architecture):
        rejection = limits(record.candidate)
        if rejection is not None:
            return phase.prune(record.number, rejection)
    for earlier in phase.history():
        if earlier.state == "complete" and earlier.digest == record.digest:
            assert earlier.value is not None
            return phase.finish(
                record.number, Score(value=earlier.value, attributes={"same_as_trial": earlier.number})
            )
    try:
        result = score(record.candidate)
    except CandidateFailed as failure:
        return phase.fail(record.number, str(failure))
    return phase.finish(record.number, result)


def _last_failure(history: History) -> str:
    for record in reversed(history):
        if record.reason is not None:
            return f"; trial {record.number} {record.state}: {record.reason}"
    return "; nothing was tried"
