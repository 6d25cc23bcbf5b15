"""Levels against objects: who answers for what, how far a level sees, and the sentence that follows."""

from typing import Any

import pytest

from nas.methods import level_fields
from nas.methods.level_fields import Resized, pyramid_of
from nas.report.data_facts import LevelFacts, Pyramid, percentile
from search_spaces.catalog import get_architecture
from search_spaces.cost import trf
from search_spaces.errors import ConfigError
from trainers.recipes import DetectorRecipe


def square(side: float, *, x: float = 0.0) -> Resized:
    """A square around the middle of an image of 512 px."""
    low, high = 256 - side / 2, 256 + side / 2
    return Resized(low + x, low, high + x, high)


def looked_at(boxes: list[Resized], *, effective: bool = False, **settings: Any) -> Pyramid:
    recipe = DetectorRecipe(**{"name": "fcos", "fpn_channels": 8, "head_convs": 0, **settings})
    return pyramid_of(
        boxes,
        recipe=recipe,
        architecture=get_architecture("resnet18"),
        backbone="resnet18",
        canvas=(512, 512),
        num_classes=1,
        effective=effective,
        seed=0,
    )


def test_fcos_gives_objects_to_levels_by_its_ranges() -> None:
    # From the centre a square reaches half its side, and ranges end at 8 strides: 32, 64, 128 px and so on.
    found = looked_at([square(20), square(24), square(100), square(200), square(400)])
    assert [level.level for level in found.levels] == ["c2", "c3", "c4", "c5"]
    assert [level.stride for level in found.levels] == [4, 8, 16, 32]
    assert [level.looks_for for level in found.levels] == [64, 128, 256, 512]
    assert [level.objects for level in found.levels] == [2, 1, 1, 1]
    assert [level.median for level in found.levels] == [24, 100, 200, 400]
    fields = trf(get_architecture("resnet18"))
    assert {level.level: level.theoretical for level in found.levels} == fields
    assert found.seen == 5 and found.unassigned == 0
    assert all(level.effective is None for level in found.levels)


def test_a_level_whose_objects_outgrow_it_is_short_of_field() -> None:
    # Four times the scale: c2 answers up to a reach of 128 px, and sees 43.
    found = looked_at([square(side) for side in (30, 60, 100, 300)], anchor_scale=4.0)
    c2, c3, c4, _ = found.levels
    assert (c2.objects, c2.median, c2.theoretical) == (3, 60, 43)
    assert c2.verdict == "short" and c2.beyond == pytest.approx(2 / 3)
    assert (
        "c2 (stride 4) is short of field: it sees 43 px in theory, but four in five of its objects (3)"
        in c2.sentence
    )
    assert (c3.objects, c3.verdict) == (1, "short"), "300 px against 99"
    assert c4.verdict == "no objects" and "answers for no object" in c4.sentence


def test_further_maps_see_what_their_convolutions_add() -> None:
    boxes = [square(64)]
    fields = trf(get_architecture("resnet18"))
    convs = looked_at(boxes, levels=("c3", "c4", "c5"), extra_levels=2)
    assert [level.theoretical for level in convs.levels][2:] == [
        fields["c5"],
        fields["c5"] + 2 * 32,
        fields["c5"] + 2 * 32 + 2 * 64,
    ]
    pools = looked_at(boxes, name="faster_rcnn", levels=("c3", "c4", "c5"), extra_levels=2)
    assert [level.theoretical for level in pools.levels][2:] == [fields["c5"]] * 3


def test_a_detector_that_gives_no_levels_is_judged_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.detectors.fcos.FCOS.objects_by_level", lambda self, targets, image_size: {})
    found = looked_at([square(60), square(100), square(600)])
    assert [level.objects for level in found.levels] == [1, 1, 0, 1], "looking for 64, 128, 256 and 512 px"
    assert "nearest size" in found.assigned_by


def test_effective_fields_are_measured_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_fields, "CANVAS", 128)
    found = looked_at([square(20)], effective=True, levels=("c2", "c3"), extra_levels=1)
    c2, c3, extra = found.levels
    assert c2.effective is not None and c3.effective is not None
    assert 0 < c2.effective < c2.theoretical and c2.effective < c3.effective
    assert extra.effective is None


def test_a_large_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_fields, "MOST_OBJECTS", 5)
    boxes = [square(20 + side) for side in range(20)]
    first, again = looked_at(boxes), looked_at(boxes)
    assert first.seen == 5 and first == again
    assert sum(level.objects for level in first.levels) >= 5


def test_objects_that_no_level_answers_for() -> None:
    # RetinaNet leaves a box outside of all anchors alone; FCOS one between all locations.
    found = looked_at([Resized(100.1, 100.1, 101.0, 101.0), square(24)])
    assert found.unassigned == 1 and found.seen == 2


def test_levels_that_the_backbone_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="c7"):
        looked_at([square(20)], levels=("c3", "c7"))


@pytest.mark.parametrize(
    ("theoretical", "effective", "median", "verdict"),
    [
        (99, None, 99, "enough"),
        (99, None, 100, "short"),
        (99, 60.0, 60, "enough"),
        (99, 60.0, 61, "short in effect"),
        (99, 60.0, 100, "short"),
        (99, 60.0, None, "no objects"),
    ],
)
def test_the_rule(theoretical: int, effective: float | None, median: float | None, verdict: str) -> None:
    level = LevelFacts(
        level="c3",
        stride=8,
        looks_for=64,
        theoretical=theoretical,
        effective=effective,
        objects=0 if median is None else 7,
        low=median,
        median=median,
        high=median,
        beyond=0.0,
    )
    assert level.verdict == verdict
    assert ("short of field" in level.sentence) == verdict.startswith("short")
    assert ("in effect" in level.sentence) == (effective is not None and median is not None)


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 11)]
    assert [percentile(values, share) for share in (0.0, 0.1, 0.5, 0.9, 1.0)] == [1, 2, 6, 10, 10]
    assert percentile([4.0], 0.5) == 4


def test_what_was_drawn_and_what_no_level_answers_for_is_said() -> None:
    one = Pyramid(detector="fcos", backbone="x", levels=(), assigned_by="by size", seen=3000, unassigned=2)
    assert one.told(3922) == (
        "Objects belong to levels by size. Of 3,922 objects 3,000 were drawn by chance. For 2 of them no level answers."
    )
    assert "drawn" not in one.told(3000)
