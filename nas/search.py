"""The loop of every search: ask a controller, score the candidates, tell the study.

Everything else in this package is one of the three. Candidates are asked for in rounds of a fixed size and a round is
told in the order of its trials, so what is proposed depends neither on how many workers there are nor on who is first.
A search may also run free: whenever a candidate has its score the next one is asked for. Workers never wait then, and
every trial says what was known when it was asked for, so that its choice can be derived again (:mod:`nas.replay`).
The loop keeps no state: kill it anywhere, call it again on the same phase, and the trials come out as if it had never
stopped.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nas.controllers.base import Controller, Done
from nas.engines.base import Engine, InProcess, Job, Lost
from nas.proxies.base import Proxy, StagedProxy
from nas.rungs import Rungs
from nas.study import Phase
from nas.trials import (
    BESIDE,
    BY_GROUP,
    LOST,
    LOST_SECONDS,
    ROUND,
    STAGE,
    STOPPED_AT,
    History,
    Json,
    Record,
    Score,
)
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed, RunError

NOTHING = 0.05
"""Seconds of a failure below which nothing is booked for it."""
RETRIES = 2
"""Further tries of a candidate whose worker died."""
_SUMMED = ("seconds", "cpu_seconds", "images_seen", "macs_spent")
_COSTS = ("steps", "images", *_SUMMED)
"""Attributes of a score that say what it has cost."""


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
    engine: Engine | None = None,
    batch: int = 1,
    rounds: bool = True,
    retries: int = RETRIES,
    stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Record, History], None] | None = None,
    limits: Callable[[Architecture], str | None] | None = None,
    pruning: Rungs | None = None,
    facts: Callable[[Architecture], Mapping[str, Json]] | None = None,
    measured: Measurement | None = None,
) -> Architecture:
    """Run a phase to its end, from wherever it stands.

    Ctrl-C, a kill or an unlisted error leaves trials in state ``running``; the next call evaluates them
    again under their own numbers before it asks for others.

    Args:
        phase: where the trials are kept.
        controller: proposes the candidates and names the winner.
        score: the proxy; the same candidate must get the same score at any time, so a candidate that
            was scored before is not scored again. It raises ``CandidateFailed`` for a failure that
            concerns this candidate only; any other exception stops the search.
        engine: calls a proxy that gives the same scores, in other processes perhaps; this process when left out.
        batch: candidates asked for before the first of them is scored, those that a limit rejects not counted.
        rounds: all of a batch are told, in their order, before the next is asked for; False: so many are under way at
            any time, and each is told when its score is there.
        retries: how often a candidate is tried again whose worker died or took too long; then it has failed.
        stop: asked between candidates; True: those under way are finished, no other is begun, and the search ends as
            by Ctrl-C.
        on_trial: called with each finished trial and the history it ends.
        limits: a cheap check of a whole architecture (parameters, MACs); a sentence rejects it before the
            proxy spends anything.
        pruning: decides at each of its rungs whether a candidate goes on; needs a proxy that scores in stages. All
            candidates of a round reach a rung before the first of them goes on.
        facts: what is known of a whole architecture before anything is spent (its cost), kept with its trial.
        measured: what is measured after the limits and before the proxy; written to the trial before anything is
            decided by it, and never measured again, because a clock does not repeat itself.

    Returns:
        The controller's winner.

    Raises:
        RunError: no candidate got a score; the message ends with the last failure.
        KeyboardInterrupt: it was stopped.
        TypeError: ``pruning`` beside a proxy that cannot be stopped on the way, or without rounds.
    """
    if pruning is not None and not rounds:
        raise TypeError(
            "candidates are compared at a rung that all of a round have reached; leave pruning out"
        )
    if pruning is not None and not isinstance(score, StagedProxy):
        raise TypeError(f"{type(score).__name__} does not score in stages; leave pruning out")
    loop = _Search(
        phase=phase,
        controller=controller,
        proxy=score,
        engine=engine or InProcess(score),
        batch=batch,
        retries=retries,
        stop=stop,
        on_trial=on_trial,
        limits=limits,
        pruning=pruning,
        facts=facts,
        measured=measured,
    )
    if rounds:
        while running := loop.next_round():
            loop.carry_out(running)
    else:
        loop.run_free()
    winner = controller.winner(phase.history())
    if winner is None:
        raise RunError(f"phase {phase.name}: no candidate got a score{_last_failure(phase.history())}")
    return winner


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The arguments of :func:`search`, and what it does round by round."""

    phase: Phase
    controller: Controller
    proxy: Proxy
    engine: Engine
    batch: int
    retries: int
    stop: Callable[[], bool]
    on_trial: Callable[[Record, History], None] | None
    limits: Callable[[Architecture], str | None] | None
    pruning: Rungs | None
    facts: Callable[[Architecture], Mapping[str, Json]] | None
    measured: Measurement | None
    settled: dict[str, Record] = field(default_factory=dict)
    """Digest -> the first trial that an equal one repeats, because it was scored or stopped."""

    def __post_init__(self) -> None:
        for record in self.phase.history():
            self._settle(record)

    def _settle(self, record: Record) -> None:
        if record.value is not None or record.stopped_at is not None:
            self.settled.setdefault(record.digest, record)

    def next_round(self) -> list[Record]:
        """The running trials of the round that a stop left open, or else of a new one; none when the search is over."""
        unfinished = self.phase.running()
        mine = self.phase.history()[unfinished[0].round :] if unfinished else ()
        running = [record for record in mine if not record.finished and not self._rejected(record)]
        # Nothing of a round is spent or told before all of it was asked for.
        if running and any(_begun(record) for record in mine):
            return running
        while len(running) < self.batch and not self._stopped():
            record = self._asked({ROUND: running[0].round} if running else {})
            if record is None:
                break
            if not self._rejected(record):
                running.append(record)
        return running

    def run_free(self) -> None:
        """Ask whenever less than a batch is under way, and tell each as soon as its score is there."""
        waiting = [one.number for one in self.phase.running() if not self._rejected(one)]
        given: set[int] = set()

        def more() -> list[Job]:
            waiting[:] = [number for number in waiting if not self._repeated(number)]
            while len(waiting) < self.batch and not self.stop():
                record = self._asked({BESIDE: list(waiting)})
                if record is None:
                    break
                if not self._rejected(record) and not self._repeated(record.number):
                    waiting.append(record.number)
            jobs = [] if self.stop() else [job for job in self._jobs(waiting) if job.number not in given]
            given.update(job.number for job in jobs)
            return jobs

        while jobs := more():
            for job, outcome in self._outcomes(jobs):
                self._told_of(job.number, {job.number: outcome})
                waiting.remove(job.number)
                self.engine.add(more())
        self._stopped()

    def _asked(self, known: Mapping[str, Json]) -> Record | None:
        """A new trial; None when the controller is done or waits for those under way.

        Args:
            known: attributes that say when it was asked for.
        """
        asked = self.controller.ask(self.phase.history())
        if asked is None:
            assert self.phase.running(), "it waits for running trials only"
            return None
        if isinstance(asked, Done):
            return None
        facts = dict(self.facts(asked)) if self.facts and isinstance(asked, Architecture) else {}
        return self.phase.begin(asked, {**facts, **known})

    def _rejected(self, record: Record) -> bool:
        """Whether a limit ends this trial, which is then told."""
        if not isinstance(record.candidate, Architecture):
            return False
        reason = None if self.limits is None else self.limits(record.candidate)
        if reason is None and self.measured is not None:
            found = self.measured.attributes(record.candidate, self.phase.history())
            if list(found)[-1] not in record.attributes:
                record = self.phase.note(record.number, found)
            reason = self.measured.rejection(record)
        if reason is None:
            return False
        self._told(self.phase.prune(record.number, reason))
        return True

    def carry_out(self, running: Sequence[Record]) -> None:
        """Bring the trials of a round to their ends."""
        if self.pruning is not None:
            for step in self.pruning.rungs:
                self._rung(self.pruning, [record.number for record in running], step)
        waiting = [record.number for record in running if not self._now(record.number).finished]
        found: dict[int, Score | CandidateFailed] = {}
        for number in waiting:
            if (kept := self._now(number).kept) is not None:
                found[number] = kept
        self._tell(waiting, found)
        while waiting:
            for job, outcome in self._outcomes(self._jobs(waiting, known=found)):
                found[job.number] = outcome
                self._tell(waiting, found)
                if job.number in waiting:
                    self.phase.keep(job.number, outcome)

    def _rung(self, pruning: Rungs, numbers: Sequence[int], step: int) -> None:
        """Score the candidates at a step, all of them before the first decision, and stop the poor ones."""
        while jobs := self._jobs(numbers, step=step):
            for job, outcome in self._outcomes(jobs):
                if isinstance(outcome, Score):
                    self._note_stage(job.number, step, outcome)
                    self.phase.report(job.number, step, outcome.value)
                else:
                    self._failed(job.number, outcome)
        for number in numbers:
            record = self._now(number)
            if record.finished or step not in record.intermediate:
                continue
            # The values are durable before anything is decided, and the decision follows from what is durable: a kill
            # in between changes nothing.
            reason = pruning.stops(self.phase.history(), number, step)
            if reason is not None:
                self._drop(record.candidate)
                self._told(self.phase.prune(number, reason, record.stage))

    def _jobs(
        self, numbers: Sequence[int], *, known: Collection[int] = (), step: int | None = None
    ) -> list[Job]:
        """What is to be scored: of equal candidates the first, and none whose score is known."""
        first: dict[str, Record] = {}
        for record in map(self._now, numbers):
            if not record.finished and record.digest not in self.settled:
                first.setdefault(record.digest, record)
        return [
            Job(number=record.number, candidate=record.candidate, step=step)
            for record in first.values()
            if record.number not in known and step not in record.intermediate
        ]

    def _outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Score | CandidateFailed]]:
        """What comes of the jobs; one that keeps losing its workers has failed."""
        for job, outcome in self.engine.outcomes(jobs):
            if not isinstance(outcome, Lost):
                yield job, outcome
                if self.stop():
                    self.engine.withdraw()
                continue
            before = self._now(job.number)
            spent = round(before.lost_seconds + outcome.seconds, 3)
            lost = self.phase.note(job.number, {LOST_SECONDS: spent, LOST: before.lost + 1}).lost
            if lost > self.retries:
                yield job, CandidateFailed(f"{outcome.reason}; it was tried {lost} times")
            elif not self.stop():
                self.engine.add([job])
        self._stopped()

    def _stopped(self) -> bool:
        """Always False, for where a person wants to stop this does not return."""
        if self.stop():
            raise KeyboardInterrupt
        return False

    def _tell(self, waiting: list[int], found: Mapping[int, Score | CandidateFailed]) -> None:
        """Tell, in the order of the trials, as many as can be told, and take them off the list."""
        while waiting and (self._repeated(waiting[0]) or self._told_of(waiting[0], found)):
            del waiting[0]

    def _told_of(self, number: int, found: Mapping[int, Score | CandidateFailed]) -> bool:
        outcome = found.get(number)
        if outcome is None:
            return False
        if isinstance(outcome, Score):
            self._told(self.phase.finish(number, self._whole(number, outcome)))
        else:
            self._failed(number, outcome)
        return True

    def _failed(self, number: int, failure: CandidateFailed) -> None:
        self._drop(self._now(number).candidate)
        spent: Mapping[str, Json] = failure.spent
        if stage := self._now(number).stage:
            # What it has cost until its last rung, and since.
            spent = {**stage, **self._with_stages(number, spent)}
        elif failure.spent.get("seconds", 0.0) < NOTHING:
            spent = {}
        self._told(self.phase.fail(number, str(failure), spent))

    def _drop(self, candidate: Candidate) -> None:
        """Nobody goes on with a candidate."""
        if isinstance(self.proxy, StagedProxy):
            self.proxy.drop(candidate)

    def _repeated(self, number: int) -> bool:
        """Whether an equal candidate has been scored or stopped, so that this trial ends the same way."""
        record = self._now(number)
        earlier = self.settled.get(record.digest)
        if earlier is None:
            return False
        same: dict[str, Json] = {"same_as_trial": earlier.number}
        if earlier.value is not None:
            self._told(self.phase.finish(number, Score(value=earlier.value, attributes=same)))
        else:
            # Without its values, which would count twice where candidates are compared.
            same[STOPPED_AT] = earlier.stopped_at
            self._told(self.phase.prune(number, f"as trial {earlier.number}: {earlier.reason}", same))
        return True

    def _note_stage(self, number: int, step: int, stage: Score) -> None:
        """Keep what a trial has cost until now, in case it is stopped or goes on in another process.

        And what a race compares; before the value, which says that all of it is there.
        """
        whole = self._whole(number, stage).attributes
        if spent := {name: whole[name] for name in _COSTS if name in whole}:
            self.phase.note(number, {STAGE: spent})
        if BY_GROUP in whole:
            before = self._now(number).attributes.get(BY_GROUP)
            earlier = before if isinstance(before, Mapping) else {}
            self.phase.note(number, {BY_GROUP: {**earlier, str(step): whole[BY_GROUP]}})

    def _whole(self, number: int, score: Score) -> Score:
        """The score with the seconds of the stages before it."""
        sums = self._with_stages(number, score.attributes)
        return Score(value=score.value, attributes={**score.attributes, **sums}) if sums else score

    def _with_stages(self, number: int, now: Mapping[str, Json]) -> dict[str, Json]:
        """Seconds, images and multiply-adds of a trial's stages and of what came after them."""
        sums: dict[str, Json] = {}
        for name in _SUMMED:
            before, after = self._now(number).stage.get(name), now.get(name)
            if isinstance(before, int | float) and isinstance(after, int | float):
                sums[name] = round(before + after, 3)
        return sums

    def _now(self, number: int) -> Record:
        return self.phase.record(number)

    def _told(self, record: Record) -> None:
        self._settle(record)
        if self.on_trial is not None:
            self.on_trial(record, self.phase.history())


def _begun(record: Record) -> bool:
    """Whether anything was spent on a trial: it is told, by another than a limit, or under way."""
    rejected = record.state == "pruned" and record.stopped_at is None
    return (record.finished and not rejected) or bool(record.intermediate) or record.kept is not None


def _last_failure(history: History) -> str:
    for record in reversed(history):
        if record.reason is not None:
            return f"; trial {record.number} {record.state}: {record.reason}"
    return "; nothing was tried"
