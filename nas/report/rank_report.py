"""A proxy and rivals that cost nothing against one truth: as data, as lines of a terminal, as part of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.report import drawings
from nas.report.drawings import Axis, Estimate
from nas.report.formatting import escape
from nas.report.markup import card, note, table
from nas.report.rank_quality import Ceiling, RankQuality
from nas.report.ranking import MINIMUM_NETWORKS
from search_spaces.errors import RunError


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """Proxies and trivial rivals against one truth.

    Args:
        phase: of the search whose scores these are.
        table: name of the truth.
        networks: that have both a score and a truth.
        seeds: of the truth.
        ceiling: that its noise sets, over these networks.
        rows: name -> quality, the proxy first.
        share: multiply-adds of the phase over those of the table's trainings; None where the run does not know.
        warning: why not to lean on the numbers, or None.
    """

    phase: str
    table: str
    networks: int
    seeds: int
    ceiling: Ceiling
    rows: Mapping[str, RankQuality]
    share: float | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


COLUMNS = ("", "tau-b", "95 %", "weighted", "rho", "given size", "top tenth", "recall@k", "regret@k")


def rank_rows(report: RankReport) -> list[list[str]]:
    """A line for every proxy, under :data:`COLUMNS`."""
    return [
        [
            name,
            _two(one.tau.value),
            "–" if one.tau.low is None else f"{_two(one.tau.low)} to {_two(one.tau.high)}",
            _two(one.weighted.value),
            _two(one.rho.value),
            _two(one.partial.value),
            _two(one.top.value),
            _two(one.recall.value),
            _two(one.regret.value),
        ]
        for name, one in report.rows.items()
    ]


def rank_lines(report: RankReport) -> list[str]:
    """What to know when reading the table."""
    found = report.ceiling
    first = next(iter(report.rows.values()))
    lines = [
        f"{report.networks} networks of {report.table}, truth: mean AP over {report.seeds} seeds; k = {first.k}, "
        "regret in AP points; given size: rho after what parameters and MACs explain; intervals: 95 %, over networks"
    ]
    if found.seeds < 2:
        lines.append(
            "one seed of the truth: its noise, and with it the highest tau to hope for, is not known"
        )
    else:
        lines.append(
            f"ceiling: a proxy without error would reach tau {_two(found.tau)}; two seeds of the truth agree by "
            f"{_two(found.seed_to_seed)}; noise of one training {_two(found.noise)} AP, spread of networks "
            f"{_two(found.spread)} AP"
        )
    if report.share is not None:
        lines.append(f"the phase took {report.share:.3f} of the multiply-adds of the table")
    if report.warning is not None:
        lines.append(f"warning: {report.warning}")
    # Where the whole ranking is as short, the warning above has said it.
    if first.top.networks < MINIMUM_NETWORKS <= report.networks:
        lines.append(
            f"warning: the top tenth is {first.top.networks} networks of {MINIMUM_NETWORKS} that an interval needs; "
            "its tau says little"
        )
    lines.append("intervals of the other columns: nas rank --json")
    return lines


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def read_reports(data: Sequence[Mapping[str, Any]]) -> tuple[RankReport, ...]:
    """From plain data.

    Raises:
        RunError: of another version, or altered.
    """
    try:
        return TypeAdapter(tuple[RankReport, ...]).validate_python(tuple(data))
    except (TypeError, ValidationError) as error:
        raise RunError(
            "truth.json of the run cannot be read; write it again with `nas report RUN --truth TABLE`, or delete it"
        ) from error


def against_truth(reports: Sequence[RankReport]) -> str:
    """The part of a page: a table and the intervals of tau, phase by phase."""
    return "".join(
        f"<h3>{escape(one.phase)}: against the table {escape(one.table)}</h3>"
        + card(_intervals(one))
        + table(list(COLUMNS), [[escape(cell) for cell in row] for row in rank_rows(one)])
        + "".join(
            note(f"{line[0].upper()}{line[1:]}.", warning=line.startswith("warning"))
            for line in rank_lines(one)
        )
        for one in reports
    )


def _intervals(report: RankReport) -> str:
    rows = [
        Estimate(
            name=f"{name}: {_two(one.tau.value)}",
            value=one.tau.value,
            low=one.tau.low,
            high=one.tau.high,
            role="winner" if place == 0 else "soft",
        )
        for place, (name, one) in enumerate(report.rows.items())
    ]
    if report.ceiling.tau is not None:
        found = report.ceiling
        rows.append(
            Estimate(
                name=f"ceiling: {_two(found.tau)}",
                value=found.tau,
                low=found.low,
                high=found.tau,
                role="baseline",
            )
        )
    axis, ends = Axis(low=-1.0, high=1.0, name=""), ("reversed", "same order")
    return drawings.responsive(
        lambda width: drawings.intervals(rows, axis=axis, width=width, row_height=74, ends=ends)
    )
