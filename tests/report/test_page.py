"""The page of a made-up run: complete, honest, self-contained, well formed."""

import base64
import dataclasses
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.report.data import Box, Metrics, ReportData
from nas.report.drawings import Axis
from nas.report.fields import confident
from nas.report.formatting import duration, large, points
from nas.report.page import read_report, render, write_report
from nas.report.pictures import erf_png, jpeg
from search_spaces.architecture import Genes
from search_spaces.errors import RunError

Example = Callable[..., ReportData]


class Checker(HTMLParser):
    """Collects ids, links and sources, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.unlabelled = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.unlabelled += tag == "svg" and "aria-label" not in found and "aria-hidden" not in found
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def bare(report: ReportData) -> ReportData:
    return dataclasses.replace(
        report,
        state="stages: 17 of 31",
        baseline=dataclasses.replace(report.baseline, results=(), latency=None, memory=None, levels=()),
        winner=None,
        random=None,
        trials=(),
        erf=None,
        detections=(),
        ranks=None,
        cost=(),
        data=None,
        reproduction=None,
    )


def test_page_is_well_formed_and_self_contained(example: Example) -> None:
    for report in (example(), bare(example())):
        checker = checked(render(report))
        assert len(checker.ids) == len(set(checker.ids))
        for source in checker.sources:
            assert source.startswith(("data:image/", "#"))
            assert not source.startswith("#") or source[1:] in checker.ids
        assert checker.unlabelled == 0
        page = render(report)
        assert "<script" not in page
        assert not re.search(r"https?://|url\(|@import", page)


def test_page_is_deterministic(example: Example) -> None:
    assert render(example()) == render(example())


def test_report_is_written_and_read_back(example: Example, tmp_path: Path) -> None:
    report = example()
    page = write_report(report, tmp_path)
    assert page == tmp_path / "report.html"
    assert page.read_text(encoding="utf-8") == render(report)
    assert read_report(tmp_path) == report
    assert ReportData.from_dict(json.loads(json.dumps(bare(report).to_dict()))) == bare(report)


def test_damaged_report_json_is_named(example: Example, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no report.json"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RunError, match="no JSON"):
        read_report(tmp_path)
    data = example().to_dict()
    data["baseline"]["colour"] = "blue"
    data["baseline"]["params"] = "many"
    with pytest.raises(RunError, match=r"baseline\.params(.|\n)*baseline\.colour"):
        ReportData.from_dict(data)


def test_verdict_better_only_with_the_whole_interval_above_zero(example: Example) -> None:
    better = example(gain=0.03).verdict()
    assert better.kind == "better" and not better.keep_baseline
    assert "The winner beats the baseline by" in render(example(gain=0.03))
    none = example(gain=0.001)
    assert none.verdict().kind == "no better" and none.verdict().keep_baseline
    page = render(none)
    assert '<p class="sentence">No better than the baseline, keep the baseline.</p>' in page
    assert "The interval contains zero." in page
    assert "Keep the baseline." in page
    assert example(gain=-0.03).verdict().kind == "worse"


def test_verdict_without_evidence(example: Example) -> None:
    report = example()
    assert report.winner is not None
    assert bare(report).verdict().kind == "searching"
    assert example(seeds=1).verdict().kind == "one seed"
    untrained = dataclasses.replace(report, winner=dataclasses.replace(report.winner, results=()))
    assert untrained.verdict().kind == "untrained"
    assert "nas resume runs/demo" in render(untrained)
    same = dataclasses.replace(report, winner=report.baseline)
    assert same.verdict().kind == "same" and same.verdict().keep_baseline
    # A difference of exactly nothing contains zero.
    assert report.winner.ap_by_seed != report.baseline.ap_by_seed


def test_missing_parts_name_their_command(example: Example) -> None:
    page = render(bare(example()))
    assert "nas report runs/demo --check 13" in page
    assert "nas resume runs/demo" in page
    assert "stages: 17 of 31" in page


def test_sections_come_in_the_agreed_order(example: Example) -> None:
    page = render(example())
    anchors = [
        "verdict",
        "table",
        "networks",
        "candidates",
        "history",
        "erf",
        "detections",
        "curves",
        "ranks",
    ]
    anchors += ["cost", "data", "repeat", "next"]
    places = [page.index(f'id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)


def test_equal_macs_are_said_and_parameters_drawn(example: Example) -> None:
    report = example()
    assert "so the score is drawn against parameters" in render(report)
    uneven = tuple(
        dataclasses.replace(trial, macs=trial.macs + 10_000_000 * index) if trial.macs else trial
        for index, trial in enumerate(report.trials)
    )
    assert "score against multiply-adds" in render(dataclasses.replace(report, trials=uneven))


def test_the_front_is_a_line_and_a_table(example: Example) -> None:
    report = example()
    trials = tuple(
        dataclasses.replace(
            trial, phase="search", number=number, macs=1_000_000 * (number + 1), value=0.2 + 0.01 * number
        )
        for number, trial in enumerate(report.trials[:5])
    )
    searched = dataclasses.replace(report, trials=trials, cost_objective="macs", front=(0, 2, 4))
    page = render(searched)
    checked(page)
    assert "<title>Pareto front of the search</title>" in page
    assert "The front in AP and MACs: 3 candidates" in page
    for number in (0, 2, 4):
        assert f"{number} <small>{trials[number].digest}</small>" in page
    assert f"1 <small>{trials[1].digest}</small>" not in page
    assert "Pareto" not in render(dataclasses.replace(searched, cost_objective=None, front=()))


def test_what_became_of_unscored_candidates_is_told_apart(example: Example) -> None:
    report = example()
    first, second, *rest = report.trials
    stopped = dataclasses.replace(
        first, state="pruned", value=None, stopped_at=60, reason="stopped at step 60"
    )
    rejected = dataclasses.replace(second, state="pruned", value=None, reason="macs: 12 are too many")
    page = render(dataclasses.replace(report, trials=(stopped, rejected, *rest)))
    for what, reason in (
        ("1 candidate failed", "loss became nan"),
        ("1 candidate stopped on the way by a rung", "stopped at step 60"),
        ("1 candidate rejected by a limit before anything ran", "macs: 12 are too many"),
    ):
        assert page.index(what) < page.index(reason)
    checked(page)


def test_text_from_outside_is_escaped(example: Example) -> None:
    report = dataclasses.replace(example(), title="<script>alert(1)</script>", run='a"b')
    page = render(report)
    assert "<script" not in page
    assert "loss became nan in step 12 &lt;box&gt;" in page
    checked(page)


def test_curve_still_rising_is_warned_about(example: Example) -> None:
    report = example()
    assert report.winner is not None
    steep = tuple(
        dataclasses.replace(
            result,
            curve=tuple(dataclasses.replace(point, AP=0.3 * point.epoch / 60) for point in result.curve),
        )
        for result in report.winner.results
    )
    page = render(dataclasses.replace(report, winner=dataclasses.replace(report.winner, results=steep)))
    assert "a longer retraining may change the verdict" in page
    assert "Retrain longer" in page


def test_networks_of_a_foreign_family_and_of_33_blocks(example: Example) -> None:
    report = example()
    foreign = dataclasses.replace(
        report.baseline,
        architecture=dataclasses.replace(report.baseline.architecture, genes=Genes({"kernel": 3})),
    )
    assert "nas describe" in render(dataclasses.replace(report, baseline=foreign, winner=None))
    deep = dataclasses.replace(
        report.baseline,
        architecture=dataclasses.replace(
            report.baseline.architecture, genes=Genes({"blocks": (3, 4, 23, 3), "dilations": (1,) * 33})
        ),
    )
    page = render(dataclasses.replace(report, baseline=deep))
    assert "stage 3, block 23: dilation 1" in page
    checked(page)


def test_metrics_from_pycocotools_leave_absent_sizes_out() -> None:
    found = Metrics.from_coco({"AP": 0.4, "AP50": 0.6, "APs": -1.0, "extra": 3.0})
    assert found == Metrics(AP=0.4, AP50=0.6)


def test_most_confident_boxes_are_chosen() -> None:
    boxes = tuple(Box(x=0, y=0, width=1, height=1, label=str(n), score=n / 10) for n in range(5))
    assert [box.label for box in confident(boxes, 2)] == ["4", "3"]
    assert len(confident(boxes, 0)) == 1


def test_pictures_decode() -> None:
    bell = np.outer(np.hanning(300), np.hanning(300))
    picture = opened(erf_png(bell))
    assert (picture.format, picture.size) == ("PNG", (150, 150))
    brightness = np.asarray(picture).sum(axis=2)
    assert brightness[75, 75] > brightness[75, 20] > brightness[0, 0]
    assert erf_png(np.zeros((4, 4)))
    photograph = opened(jpeg(torch.full((3, 24, 40), 128, dtype=torch.uint8)))
    assert (photograph.format, photograph.size) == ("JPEG", (40, 24))
    with pytest.raises(ValueError, match="uint8"):
        jpeg(torch.zeros(3, 24, 40))
    with pytest.raises(ValueError, match="two dimensions"):
        erf_png(np.zeros(4))


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_numbers_as_people_read_them() -> None:
    assert large(113_246_208) == "113\u00a0M"
    assert large(999_950) == "1.00\u00a0M"
    assert large(12) == "12.0"
    assert duration(244.1) == "4\u00a0min\u00a04\u00a0s"
    assert duration(7_260) == "2\u00a0h\u00a01\u00a0min"
    assert points(-0.0123) == "−1.2"


@pytest.mark.parametrize("low, high", [(0, 1), (-0.3, 0.31), (1e6, 1.5e6), (23.1, 23.2)])
@pytest.mark.parametrize("wanted", [3, 5, 11])
def test_ticks_are_inside_and_about_as_many_as_wanted(low: float, high: float, wanted: int) -> None:
    ticks = Axis(low=low, high=high, name="").ticks(wanted)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert wanted / 2 <= len(ticks) <= 2 * wanted


@pytest.mark.parametrize(
    ("better_by", "words"),
    [
        (0.05, "loses to the pre-trained network"),
        (0.0, "is no better than the pre-trained network"),
        (-0.05, "The winner is better all the same."),
    ],
)
def test_the_page_says_when_a_winner_from_scratch_loses_to_a_pretrained_network(
    example: Example, better_by: float, words: str
) -> None:
    report = example()
    assert report.winner is not None
    shifts = (0.004, -0.004) * len(report.winner.results)
    results = tuple(
        dataclasses.replace(
            one, metrics=dataclasses.replace(one.metrics, AP=one.metrics.AP + better_by + shift)
        )
        for one, shift in zip(report.winner.results, shifts, strict=False)
    )
    rival = dataclasses.replace(report.winner, name="resnet18_imagenet", results=results, init="imagenet")
    page = render(dataclasses.replace(report, hand_made=(rival,)))
    checked(page)
    assert words in page and "resnet18_imagenet began with weights (imagenet)" in page
    assert "from scratch, but for resnet18_imagenet (imagenet), under one recipe" in page
    plain = render(dataclasses.replace(report, hand_made=(dataclasses.replace(rival, init="scratch"),)))
    assert "pre-trained network" not in plain and "Winner minus resnet18_imagenet" in plain
