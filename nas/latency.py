"""Latency of candidates on this device, in the baseline's: a limit and an objective that is measured, not counted.

A measured number is not reproducible. So it is taken once for each network of a run and written to its trial before
anything is decided by it; a search that goes on reads it back.
"""

from collections.abc import Callable, Mapping

import torch

from nas.report.measure import measure_latency
from nas.trials import History, Json, Record
from search_spaces.architecture import Architecture
from search_spaces.families import family_of

LATENCY = "latency"
"""Attribute of a trial: its median latency in the baseline's."""
MEASURED = "latency_ms"
"""Attribute of a trial: low quartile, median and high quartile of both in ms, repeats, threads, device."""
REPEATS = 20


class LatencyRatio:
    """``architecture -> attributes``: its latency beside the baseline's, the two timed in turn.

    Args:
        baseline: timed beside every candidate, so that a machine that slows down slows both.
        image_size: (height, width) px; one image a pass.
        threads: of torch.
        device: where it is measured.
        repeats: timed passes of each of the two.
    """

    def __init__(
        self,
        baseline: Architecture,
        *,
        image_size: tuple[int, int],
        threads: int,
        device: torch.device,
        repeats: int = REPEATS,
    ) -> None:
        self._baseline = family_of(baseline).build(baseline, seed=0)
        self._size, self._threads, self._device, self._repeats = image_size, threads, device, repeats

    def __call__(self, architecture: Architecture) -> dict[str, Json]:
        """The ratio of the medians, with the spread of both."""
        found = measure_latency(
            {"candidate": family_of(architecture).build(architecture, seed=0), "baseline": self._baseline},
            input_size=self._size,
            repeats=self._repeats,
            threads=self._threads,
            device=self._device,
        )
        spread: dict[str, Json] = {
            name: [round(one.low_ms, 4), round(one.median_ms, 4), round(one.high_ms, 4)]
            for name, one in found.items()
        }
        candidate, baseline = found["candidate"], found["baseline"]
        return {
            MEASURED: {
                **spread,
                "repeats": candidate.repeats,
                "threads": candidate.threads,
                "device": candidate.device,
            },
            # Last: a trial that has it has the rest too.
            LATENCY: round(candidate.median_ms / baseline.median_ms, 4),
        }


class Measured:
    """What is measured of a whole architecture once a run, and what it may be at most.

    Args:
        measure: see :class:`LatencyRatio`.
        allowed: the largest ratio; None limits nothing, the measurement is then an objective only.
        known: digest -> attributes, what this run has measured elsewhere.
    """

    def __init__(
        self,
        measure: Callable[[Architecture], dict[str, Json]],
        *,
        allowed: float | None,
        known: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> None:
        self._measure, self._allowed, self._known = measure, allowed, known or {}

    def attributes(self, architecture: Architecture, history: History) -> dict[str, Json]:
        """The measurement, that of an equal network where this run has one."""
        found = known_latencies(history).get(architecture.digest) or self._known.get(architecture.digest)
        return self._measure(architecture) if found is None else dict(found)

    def rejection(self, record: Record) -> str | None:
        """The sentence that rejects a measured trial, or None."""
        ratio = record.attributes[LATENCY]
        assert isinstance(ratio, float)
        if self._allowed is None or ratio <= self._allowed:
            return None
        return f"{said(record)} of the baseline's, the limit is {self._allowed:g}"


def known_latencies(history: History) -> dict[str, Mapping[str, Json]]:
    """Digest -> what was measured of it, of the trials of a phase."""
    return {
        record.digest: {name: record.attributes[name] for name in (MEASURED, LATENCY)}
        for record in history
        if LATENCY in record.attributes
    }


def quartiles(record: Record) -> tuple[float, float, float] | None:
    """Low quartile, median and high quartile of a trial's latency in ms; None where it was not measured."""
    measured = record.attributes.get(MEASURED)
    if not isinstance(measured, Mapping):
        return None
    low, median, high = (float(str(one)) for one in measured["candidate"])  # type: ignore[union-attr]
    return low, median, high


def said(record: Record) -> str:
    """``latency: 3.1 ms (2.9 to 3.4) is 1.24``."""
    spread = quartiles(record)
    assert spread is not None
    low, median, high = spread
    return f"latency: {median:.3g} ms ({low:.3g} to {high:.3g}) is {record.attributes[LATENCY]:.2f}"
