"""A finished or running search decided again: every choice from what was known when it was made.

A controller is a pure function of the history, and a trial says which others were under way when it was asked for; so
the journal is enough to ask again. A difference means that the journal, the recipe or the code is not what it was.
"""

from dataclasses import dataclass, replace

from nas.controllers.base import Controller
from nas.rungs import Rungs
from nas.trials import BY_GROUP, LOST, LOST_SECONDS, STAGE, History, Record
from search_spaces.architecture import Architecture, Prefix


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of deciding a phase again.

    Args:
        phase: its name.
        asked: candidates asked for again, up to the first difference.
        stops: decisions at rungs made again.
        difference: the first of them, in a sentence; None where all are the same.
    """

    phase: str
    asked: int
    stops: int = 0
    difference: str | None = None


def replay(name: str, history: History, controller: Controller, pruning: Rungs | None = None) -> Replay:
    """Ask the controller for every trial again, and whoever decides at every rung.

    Args:
        name: of the phase.
        history: its trials.
        controller: as the search had it.
        pruning: who decided at rungs, if anybody did.
    """
    for record in history:
        asked = controller.ask(known_before(history, record))
        if not isinstance(asked, Architecture | Prefix):
            return Replay(
                phase=name,
                asked=record.number,
                difference=f"trial {record.number}: the journal has {record.candidate}, now nothing is proposed",
            )
        if asked.digest != record.digest:
            return Replay(
                phase=name,
                asked=record.number,
                difference=f"trial {record.number}: the journal has {record.candidate} ({record.digest}), the "
                f"controller proposes {asked} ({asked.digest})",
            )
    if pruning is None:
        return Replay(phase=name, asked=len(history))
    decisions = pruning.decisions(history)
    for (number, step), stopped in decisions.items():
        record = history[number]
        if stopped != (record.stopped_at == step):
            found = f"stopped at step {record.stopped_at}" if record.stopped_at else "not stopped"
            return Replay(
                phase=name,
                asked=len(history),
                stops=len(decisions),
                difference=f"trial {number}: the journal has it {found}; now it is {'' if stopped else 'not '}stopped "
                f"at step {step}",
            )
    return Replay(phase=name, asked=len(history), stops=len(decisions))


def known_before(history: History, record: Record) -> History:
    """The history as it was when a trial was asked for."""
    return tuple(_running(one) if _under_way(one, record) else one for one in history[: record.number])


def _under_way(earlier: Record, record: Record) -> bool:
    """Whether an earlier trial had no score yet when ``record`` was asked for."""
    if record.beside is not None:
        return earlier.number in record.beside
    # What a limit rejects is told before the next of the round is asked for.
    rejected = earlier.state == "pruned" and earlier.stopped_at is None
    return earlier.round == record.round and not rejected


def _running(record: Record) -> Record:
    """A trial as it was before anything came of it."""
    later = (BY_GROUP, LOST, LOST_SECONDS, STAGE)
    known = {name: value for name, value in record.attributes.items() if name not in later}
    return replace(record, value=None, state="running", reason=None, attributes=known, intermediate={})
