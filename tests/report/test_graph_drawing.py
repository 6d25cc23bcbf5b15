"""Scale-permuted networks drawn as graphs: everything there once, marked, inside the picture, and well formed."""

import dataclasses
import random
import re
from collections import Counter
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from nas.report.data import Contender, ReportData
from nas.report.graph_drawing import LEAD, caption, network
from nas.report.outcome import networks
from nas.report.page import render
from search_spaces.architecture import Architecture
from search_spaces.catalog import ZOO as CATALOG
from search_spaces.cost import cost
from search_spaces.families import FAMILIES
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.space import SpineNetSpace
from search_spaces.spinenet.zoo import SPINENET49_BLOCKS, ZOO, with_settings

WIDTHS = (326, 350, 458, 568)
DRAWABLE = sorted(name for name, one in ZOO.items() if one.settings["repeats"] == 1)
ALLOWED = SpineNetSpace("allowed", ZOO["spinenet49"], dead="allow")


def contender(architecture: Architecture, name: str = "net") -> Contender:
    spent = cost(architecture, (64, 96))
    return Contender(
        name=name, architecture=architecture, params=spent.params, macs=spent.macs, input_size=(64, 96)
    )


def drawn(
    architecture: Architecture,
    width: int = 458,
    *,
    role: str = "winner",
    other: Architecture | None = None,
) -> ElementTree.Element:
    beside = contender(other) if other is not None else None
    return ElementTree.fromstring(network(contender(architecture), role=role, other=beside, width=width))


def titles(svg: ElementTree.Element, kind: str) -> list[str]:
    """What the elements of a class say."""
    return [
        element.findtext("title") or ""
        for element in svg.iter()
        if kind in (element.get("class") or "").split()
    ]


def wires(svg: ElementTree.Element, kind: str = "wire") -> list[tuple[int, int]]:
    found = []
    for title in titles(svg, kind):
        match = re.match(r"block (\d+) → block (\d+)", title)
        assert match is not None, title
        found.append((int(match[1]), int(match[2])))
    return found


def dead_network() -> Architecture:
    """A random draw of which some block is read by nothing and another only by dead blocks."""
    rng = random.Random(3)
    draws = (ALLOWED.sample(rng) for _ in range(300))
    return max(draws, key=lambda one: len(SPINENET.dead(one)))


def test_every_block_and_wire_of_spinenet49_is_there_once() -> None:
    svg = drawn(ZOO["spinenet49"])
    assert [title.split(":")[0] for title in titles(svg, "block")] == [
        f"block {place}" for place in range(17)
    ]
    # The stem's chain, two parents a block, and block 11, which P5 sums because nothing had read it.
    expected = [(0, 1), (11, 14)]
    for place, (_, _, parents) in enumerate(SPINENET49_BLOCKS, start=2):
        expected += [(parent, place) for parent in parents]
    assert Counter(wires(svg)) == Counter(expected)
    assert wires(svg, "added") == [(11, 14)]
    assert "as it is, because nothing had read it" in titles(svg, "added")[0]


def test_titles_say_type_level_parents_and_use() -> None:
    found = titles(drawn(ZOO["spinenet49"]), "block")
    assert found[0] == "block 0: bottleneck in the stem, level 2, stride 4"
    assert found[3] == "block 3: residual, level 4, stride 16, reads 0 and 1"
    assert found[14] == "block 14: bottleneck, level 5, stride 32, reads 7 and 12 and 11, output P5"
    svg = drawn(ZOO["spinenet49_mobile"])
    assert titles(svg, "block")[2] == "block 2: inverted bottleneck, level 2, stride 4, reads 0 and 1"


def test_stem_and_outputs_are_told_apart_and_types_by_shape() -> None:
    svg = drawn(ZOO["spinenet49"])
    looks = Counter((group.get("class") or "").split()[-1] for group in svg.iter("g") if group.get("class"))
    assert looks == {"stem": 2, "inner": 10, "output": 5}
    shapes = Counter(
        group[1].tag for group in svg.iter("g") if (group.get("class") or "").startswith("block")
    )
    assert shapes == {"rect": 2 + 11, "path": 4}
    words = [text.text for text in svg.iter("text")]
    assert {f"P{level}" for level in range(3, 8)} <= set(words)
    assert [word for word in words if word and word.startswith("level")] == [
        f"level {level}" for level in range(2, 8)
    ]
    assert [word for word in words if word and word.startswith("stride")][-1] == "stride 128"
    assert {"bottleneck", "residual", "stem", "output"} <= set(words)


def test_dead_blocks_are_marked_and_the_rule_that_connects_them_is_drawn() -> None:
    network_with_dead = dead_network()
    dead = SPINENET.dead(network_with_dead)
    svg = drawn(network_with_dead)
    marked = titles(svg, "dead")
    assert [int(title.split(":")[0].removeprefix("block ")) for title in marked] == list(dead)
    assert any(title.endswith("dead, nothing reads it") for title in marked)
    assert any(title.endswith("dead, only dead blocks read it") for title in marked)
    assert "dead: leads to no output" in [text.text for text in svg.iter("text")]
    assert f"{len(dead)} dead blocks" in caption(contender(network_with_dead))

    connected = with_settings(network_with_dead, {"unconnected": "connect"})
    svg = drawn(connected)
    assert titles(svg, "dead") == []
    added = [title for title in titles(svg, "added") if "resampled" in title]
    unread = [title for title in marked if title.endswith("nothing reads it")]
    assert len(added) == len(unread)
    assert "dead" not in caption(contender(connected))


@pytest.mark.parametrize("name", DRAWABLE)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_leaves_the_picture(name: str, width: int) -> None:
    check_inside(drawn(ZOO[name], width), width)


@pytest.mark.parametrize("seed", range(6))
def test_random_draws_stay_inside_and_have_all_their_wires(seed: int) -> None:
    architecture = ALLOWED.sample(random.Random(seed))
    for width in (WIDTHS[0], WIDTHS[-1]):
        svg = drawn(architecture, width, role="baseline")
        check_inside(svg, width)
        assert len(wires(svg)) == len(set(wires(svg))) >= 1 + 2 * 15


def check_inside(svg: ElementTree.Element, width: int) -> None:
    *corner, found_width, height = map(float, (svg.get("viewBox") or "").split())
    assert corner == [0, 0] and found_width == width
    for text in svg.iter("text"):
        x, room = float(text.get("x") or 0), 6.0 * len(text.text or "")
        start = x - room / 2 if text.get("text-anchor") == "middle" else x
        assert start >= -1 and start + room <= width + 8, text.text
    for path in svg.iter("path"):
        if "wire" not in (path.get("class") or ""):
            continue
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d", path.get("d") or "")]
        # M x y H x C x y x y x y H x: order runs to the right; the curve's own height is checked by its ends.
        x0, y0, x1, _, _, _, _, x2, y2, x3 = numbers
        assert 0 < x0 < x1 <= x2 < x3 < width
        assert 0 < y0 < height and 0 < y2 < height
    blocks = [group for group in svg.iter("g") if (group.get("class") or "").startswith("block")]
    assert blocks


def test_wires_keep_clear_of_other_blocks_where_they_can() -> None:
    svg = drawn(ZOO["spinenet49"], 568)
    boxes = {}
    for group in svg.iter("g"):
        if (group.get("class") or "").startswith("block") and group[1].tag == "rect":
            x, y, side = (float(group[1].get(key) or 0) for key in ("x", "y", "width"))
            place = int((group.findtext("title") or "").split(":")[0].removeprefix("block "))
            boxes[place] = (x, y, x + side, y + side)
    for path in svg.iter("path"):
        if "wire" not in (path.get("class") or ""):
            continue
        ends = re.findall(r"\d+", path.findtext("title") or "")[:2]
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d", path.get("d") or "")]
        curve = (
            (numbers[2], numbers[1]),
            (numbers[3], numbers[4]),
            (numbers[5], numbers[6]),
            (numbers[7], numbers[8]),
        )
        for step in range(101):
            t = step / 100
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x, y = (sum(w * point[axis] for w, point in zip(weights, curve, strict=True)) for axis in (0, 1))
            for place, (left, top, right, bottom) in boxes.items():
                if str(place) not in ends:
                    assert not (left < x < right and top < y < bottom), (path.findtext("title"), place)


def test_two_networks_share_rows_and_columns() -> None:
    base, wide = ZOO["spinenet49"], ZOO["spinenet49_mobile"]
    alone, beside = drawn(base), drawn(base, other=wide)
    levels = [text.text for text in beside.iter("text") if (text.text or "").startswith("level")]
    assert "level 1" in levels and len(levels) == 7
    assert "level 1" not in [text.text for text in alone.iter("text")]
    assert Counter(wires(alone)) == Counter(wires(beside))


def test_caption_counts_blocks_by_type() -> None:
    text = caption(contender(ZOO["spinenet49"]))
    assert text.startswith("2 stem blocks and 15 permuted: 11 bottleneck, 4 residual · 1 added wire · ")
    assert text.endswith("MACs at 64 × 96")


def test_names_from_outside_are_escaped() -> None:
    text = network(contender(ZOO["spinenet49"], 'a<b>"&'), role="winner", other=None, width=326)
    label = ElementTree.fromstring(text).get("aria-label") or ""
    assert label.startswith('a<b>"&: block 0')


def test_page_draws_each_network_by_its_family(example: Callable[..., ReportData]) -> None:
    report = example()
    graph = contender(ZOO["spinenet49"], "SpineNet-49")
    page = render(dataclasses.replace(report, baseline=graph))
    # A drawing for the phone and one for the desk.
    assert page.count("block 11 → block 14") == 2
    assert "stage 1, block 1: dilation 1" in page
    assert LEAD in page and "nine dots" in page
    assert "nine dots" not in render(dataclasses.replace(report, baseline=graph, winner=graph))


def test_unknown_family_gets_a_sentence(example: Callable[..., ReportData]) -> None:
    report = example()
    alien = dataclasses.replace(
        report.baseline, architecture=dataclasses.replace(report.baseline.architecture, family="alien<1>")
    )
    page = render(dataclasses.replace(report, baseline=alien))
    assert "No drawing of this network of the family alien&lt;1&gt;" in page
    assert "nas describe ARCH" in page
    assert "stage 1, block 1: dilation 1" in page


def test_every_family_has_a_drawing(example: Callable[..., ReportData]) -> None:
    members = {one.family: one for one in CATALOG.values()}
    assert set(members) == set(FAMILIES)
    report = example()
    for architecture in members.values():
        html = networks(dataclasses.replace(report, baseline=contender(architecture), winner=None))
        assert "No drawing of this network" not in html and "<svg" in html
