"""Latency of a candidate: measured once, beside the baseline, kept with its trial; equal networks share it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nas.latency
from nas.controllers.random import RandomSearch
from nas.latency import LATENCY, MEASURED, LatencyRatio, Measured, known_latencies, quartiles
from nas.report.data import Latency
from nas.search import search
from nas.study import History, Json, Phase, Score, Study
from nas.testing import SeparableSpace, ToySpace, toy_score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.catalog import get_architecture

SPACE = ToySpace()


class Clock:
    """Stands for the measurement, and never gives the same number twice."""

    def __init__(self) -> None:
        self.timed: list[str] = []

    def __call__(self, architecture: Architecture) -> dict[str, Json]:
        self.timed.append(architecture.digest)
        ratio = 0.5 + 0.1 * (len(self.timed) % 10)
        return {MEASURED: {"candidate": [1.0, 2.0, 3.0], "baseline": [1.0, 1.0, 1.0]}, LATENCY: ratio}


@pytest.fixture
def phase(tmp_path: Path) -> Phase:
    return Study.open(tmp_path).phase("search", SPACE, seed=0)


def run(
    phase: Phase, clock: Clock, score: Callable[[Candidate], Score], allowed: float | None = 1.0
) -> History:
    controller = RandomSearch(phase.space, seed=0, budget=20)
    measured = Measured(clock, allowed=allowed)
    search(phase=phase, controller=controller, score=score, measured=measured)
    return phase.history()


def test_too_slow_is_rejected_before_the_proxy(phase: Phase) -> None:
    scored: list[str] = []

    def score(candidate: Candidate) -> Score:
        scored.append(candidate.digest)
        return toy_score(SPACE)(candidate)

    history = run(phase, Clock(), score)
    slow = [record for record in history if record.state == "pruned"]
    assert {record.digest for record in slow}.isdisjoint(scored)
    assert len(slow) == 8 and len(scored) == 12
    assert slow[0].reason == "latency: 2 ms (1 to 3) is 1.10 of the baseline's, the limit is 1"
    assert all(record.attributes[LATENCY] <= 1.0 for record in history if record.state == "complete")  # type: ignore[operator]
    assert quartiles(history[0]) == (1.0, 2.0, 3.0)


def test_without_a_limit_it_is_measured_and_rejects_nobody(phase: Phase) -> None:
    history = run(phase, Clock(), toy_score(SPACE), allowed=None)
    assert {record.state for record in history} == {"complete"}
    assert all(LATENCY in record.attributes for record in history)


@pytest.mark.parametrize("place", ["measured", "half noted", "noted", "scored"])
def test_what_was_written_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Stopped at the third candidate, before and after its measurement is durable."""

    class Stop(BaseException):
        pass

    clock = Clock()
    whole, passed = Phase._set_attribute, []

    def note(self: Phase, number: int, key: str, value: Json) -> None:
        stops = number == 2 and not passed
        if stops and place == "measured":
            passed.append(key)
            raise Stop
        whole(self, number, key, value)
        if stops and key == {"half noted": MEASURED, "noted": LATENCY}.get(place):
            passed.append(key)
            raise Stop

    def score(candidate: Candidate) -> Score:
        if place == "scored" and not passed and len(phase.history()) >= 3:
            passed.append("score")
            raise Stop
        return toy_score(SPACE)(candidate)

    monkeypatch.setattr(Phase, "_set_attribute", note)
    with Study.open(tmp_path) as study:
        phase = study.phase("search", SPACE, seed=0)
        with pytest.raises(Stop):
            run(phase, clock, score)
    before = list(clock.timed)
    with Study.open(tmp_path) as study:
        phase = study.phase("search", SPACE, seed=0)
        kept = known_latencies(phase.history())
        history = run(phase, clock, score)
    again = [digest for digest in clock.timed[len(before) :] if digest in before]
    assert len(again) == (place in ("measured", "half noted")), "only what was not durable is measured again"
    for record in history:
        if record.digest in kept:
            assert {name: record.attributes[name] for name in (MEASURED, LATENCY)} == kept[record.digest]


def test_equal_networks_are_measured_once(tmp_path: Path) -> None:
    from nas.controllers.catalog import make_controller

    space, clock = SeparableSpace(2, 2), Clock()
    with Study.open(tmp_path) as study:
        phase = study.phase("search", space, seed=0)
        controller = make_controller("optuna", space=space, seed=0, budget=15, options={"sampler": "random"})
        search(
            phase=phase, controller=controller, score=toy_score(space), measured=Measured(clock, allowed=0.7)
        )
        assert sorted(set(clock.timed)) == sorted(clock.timed)
        history = phase.history()
        ratios = {(record.digest, record.attributes[LATENCY]) for record in history}
        assert len(ratios) == len(clock.timed) < len(history) == 15
        # What another phase has measured holds in this one too.
        other = study.phase("random", space, seed=1)
        measured = Measured(clock, allowed=None, known=known_latencies(history))
        times = len(clock.timed)
        search(
            phase=other,
            controller=RandomSearch(space, seed=1, budget=4),
            score=toy_score(space),
            measured=measured,
        )
        assert len(clock.timed) == times + 4 - len({r.digest for r in history})


def test_the_ratio_is_that_of_the_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def timed(networks: dict[str, torch.nn.Module], **rest: object) -> dict[str, Latency]:
        asked.update(rest, networks=list(networks))
        facts = {"repeats": 20, "batch_size": 1, "input_size": (64, 64), "device": "cpu", "threads": 2}
        return {
            name: Latency(median_ms=median, low_ms=median - 1, high_ms=median + 2, **facts)  # type: ignore[arg-type]
            for name, median in (("candidate", 6.0), ("baseline", 4.0))
        }

    monkeypatch.setattr(nas.latency, "measure_latency", timed)
    ratio = LatencyRatio(
        get_architecture("resnet18"), image_size=(64, 64), threads=2, device=torch.device("cpu")
    )
    found = ratio(get_architecture("resnet18"))
    assert list(found) == [MEASURED, LATENCY] and found[LATENCY] == 1.5
    assert found[MEASURED] == {
        "candidate": [5.0, 6.0, 8.0],
        "baseline": [3.0, 4.0, 6.0],
        "repeats": 20,
        "threads": 2,
        "device": "cpu",
    }
    assert asked["networks"] == ["candidate", "baseline"], "timed in turn, by one call"
    assert asked["input_size"] == (64, 64) and asked["threads"] == 2


def test_a_real_clock_gives_a_spread() -> None:
    ratio = LatencyRatio(
        get_architecture("resnet18"), image_size=(32, 32), threads=1, device=torch.device("cpu"), repeats=3
    )
    found = ratio(get_architecture("resnet18"))
    low, median, high = found[MEASURED]["candidate"]  # type: ignore[index,call-overload]
    assert 0 < low <= median <= high and float(str(found[LATENCY])) > 0
