"""RetinaNet: anchors, matching and losses against plain loops over the definitions."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from search_spaces.recipe import FieldError
from trainers.data.detection_set import Target
from trainers.detectors.catalog import build_detector
from trainers.detectors.retinanet import _OVERLAPS_AT_ONCE, RetinaNet
from trainers.recipes import DetectorRecipe

Backbones = Callable[..., nn.Module]
RECIPE = DetectorRecipe(name="retinanet", fpn_channels=16, anchor_scale=3.0, score_threshold=0.0)


def retinanet(recipe: DetectorRecipe, backbone: nn.Module, classes: int = 3, side: int = 64) -> RetinaNet:
    detector = build_detector(recipe, backbone, classes, (side, side), seed=0)
    assert isinstance(detector, RetinaNet)
    return detector


def target(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        image_id=1,
    )


def images(count: int = 2, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def noisy(detector: RetinaNet) -> RetinaNet:
    """Outputs begin as good as constant; these differ from anchor to anchor."""
    generator = torch.Generator().manual_seed(1)
    for conv in (detector.head.cls_logits, detector.head.bbox_pred):
        assert isinstance(conv, nn.Conv2d)
        nn.init.normal_(conv.weight, std=0.1, generator=generator)
    return detector


def overlap(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def test_anchors_lie_around_the_middles_of_cells(tiny_backbone: Backbones) -> None:
    detector = retinanet(replace(RECIPE, levels=("c4", "c5")), tiny_backbone())
    anchors = detector._anchors(images()).tolist()
    expected = []
    for stride in (16, 32):
        for row in range(64 // stride):
            for column in range(64 // stride):
                x, y = stride * (column + 0.5), stride * (row + 0.5)
                for octave in range(3):
                    area = (3.0 * stride * 2 ** (octave / 3)) ** 2
                    for aspect in (0.5, 1.0, 2.0):
                        height = math.sqrt(area * aspect)
                        width = area / height
                        expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    assert len(anchors) == 9 * (16 + 4)
    torch.testing.assert_close(torch.tensor(anchors), torch.tensor(expected))
    plain = AnchorGenerator((tuple(48 * 2 ** (step / 3) for step in range(3)),), ((0.5, 1.0, 2.0),))
    sides = plain.cell_anchors[0][:, 2:] - plain.cell_anchors[0][:, :2]
    ours = detector.anchors.cell_anchors[0][:, 2:] - detector.anchors.cell_anchors[0][:, :2]
    rounded = {tuple(one) for one in sides.tolist()}
    assert {tuple((one / 2).round().mul(2).tolist()) for one in ours} == rounded


def by_hand(
    detector: RetinaNet, recipe: DetectorRecipe, batch: Tensor, targets: list[Target]
) -> tuple[float, float]:
    """Both losses, one anchor after the other."""
    logits, codes = detector._outputs(batch)
    anchors = detector._anchors(batch).tolist()
    classification = regression = 0.0
    positives = 0
    for index, one in enumerate(targets):
        boxes, labels = one["boxes"].tolist(), one["labels"].tolist()
        owner = [-1] * len(anchors)
        overlaps = [[overlap(box, anchor) for anchor in anchors] for box in boxes]
        for place in range(len(anchors)):
            best = max(range(len(boxes)), key=lambda box: overlaps[box][place], default=-1)
            if best >= 0 and overlaps[best][place] >= 0.5:
                owner[place] = best
        for box, row in enumerate(overlaps):
            owner[max(range(len(anchors)), key=row.__getitem__)] = box
        for place, box in enumerate(owner):
            for label in range(detector.num_classes):
                p = torch.sigmoid(logits[index, place, label].double()).item()
                if box >= 0 and labels[box] == label:
                    classification -= recipe.focal_alpha * (1 - p) ** recipe.focal_gamma * math.log(p)
                else:
                    classification -= (1 - recipe.focal_alpha) * p**recipe.focal_gamma * math.log(1 - p)
            if box >= 0:
                positives += 1
                regression += huber(codes[index, place].tolist(), anchors[place], boxes[box], recipe)
    return classification / (positives + 1), recipe.box_weight * regression / (4 * (positives + 1))


def huber(found: list[float], anchor: list[float], box: list[float], recipe: DetectorRecipe) -> float:
    """Summed over the four codes."""
    sides = [[one[2] - one[0], one[3] - one[1]] for one in (anchor, box)]
    wanted = [
        ((box[axis] + box[axis + 2]) - (anchor[axis] + anchor[axis + 2])) / 2 / sides[0][axis]
        for axis in (0, 1)
    ]
    wanted += [math.log(sides[1][axis] / sides[0][axis]) for axis in (0, 1)]
    total = 0.0
    for one, other in zip(found, wanted, strict=True):
        error, delta = abs(one - other), recipe.huber_delta
        total += error**2 / 2 if error < delta else delta * (error - delta / 2)
    return total


@pytest.mark.parametrize(
    "settings",
    [{}, {"focal_alpha": 0.4, "focal_gamma": 2.0, "huber_delta": 1.0, "box_weight": 1.0}],
    ids=["as the authors", "other settings"],
)
def test_losses_are_those_of_the_definitions(tiny_backbone: Backbones, settings: dict[str, float]) -> None:
    recipe = replace(RECIPE, levels=("c3", "c5"), **settings)  # type: ignore[arg-type]
    detector = noisy(retinanet(recipe, tiny_backbone())).eval()
    targets = [
        target((4, 4, 30, 28), (5, 5, 31, 30), (40, 2, 44, 60), labels=(0, 2, 1)),
        target(),
        target((0, 0, 64, 64), (30.2, 30.2, 31.0, 31.5), labels=(1, 2)),
    ]
    batch = images(3)
    with torch.no_grad():
        found = detector.losses(batch, targets)
        expected = by_hand(detector, recipe, batch, targets)
    assert found["classification"].item() == pytest.approx(expected[0], rel=1e-4)
    assert found["bbox_regression"].item() == pytest.approx(expected[1], rel=1e-4)


def test_the_best_anchor_of_an_object_is_positive_whatever_it_covers(tiny_backbone: Backbones) -> None:
    detector = retinanet(RECIPE, tiny_backbone())
    anchors = detector._anchors(images())
    tiny = target((33.0, 33.0, 35.0, 34.0))
    _, place, boxes, _ = detector.assign([tiny], anchors)
    assert len(place) == 1 and torch.equal(boxes, tiny["boxes"])
    assert 0 < overlap(tiny["boxes"][0].tolist(), anchors[place[0]].tolist()) < 0.5


def test_a_box_between_all_anchors_has_none(tiny_backbone: Backbones) -> None:
    """It would take the first anchor of the image, with codes of any size."""
    detector = retinanet(replace(RECIPE, levels=("c5",), anchor_scale=0.1), tiny_backbone())
    between = target((31.0, 31.0, 33.0, 33.0))
    _, place, _, _ = detector.assign([between], detector._anchors(images()))
    assert not len(place)
    assert all(torch.isfinite(one) for one in detector.losses(images(1), [between]).values())


def test_a_box_between_all_anchors_takes_none_from_another(tiny_backbone: Backbones) -> None:
    """Its overlaps are all zero, the largest of which is that with the first anchor of the image."""
    detector = retinanet(replace(RECIPE, levels=("c5",), anchor_scale=0.1), tiny_backbone())
    anchors = detector._anchors(images())
    first = target(tuple(anchors[0].tolist()))
    both = target(tuple(anchors[0].tolist()), (31.0, 31.0, 33.0, 33.0))
    for wanted, found in zip(
        detector.assign([first], anchors), detector.assign([both], anchors), strict=True
    ):
        assert torch.equal(wanted, found) and len(found)


@pytest.mark.parametrize("at_once", [1, 3000, 2**24])
def test_a_batch_is_matched_as_torchvision_matches_its_images(
    tiny_backbone: Backbones, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_OVERLAPS_AT_ONCE, "cpu", at_once)
    detector = retinanet(RECIPE, tiny_backbone())
    anchors = detector._anchors(images())
    generator = torch.Generator().manual_seed(0)
    targets = []
    for count in (3, 0, 12, 1, 0, 40):
        corner = torch.rand((count, 2), generator=generator) * 50
        boxes = torch.cat((corner, corner + 1 + 30 * torch.rand((count, 2), generator=generator)), dim=1)
        labels = torch.randint(3, (count,), generator=generator)
        # The second half is there twice, under other labels: all anchors are equal to both.
        targets.append(
            target(*boxes.tolist(), *boxes[count // 2 :].tolist(), labels=(*labels, *labels[count // 2 :]))
        )
    image, place, boxes, labels = detector.assign(targets, anchors)
    for index, one in enumerate(targets):
        own = image == index
        if not len(one["boxes"]):
            assert not own.any()
            continue
        match = SSDMatcher(0.5)(box_iou(one["boxes"], anchors))
        expected = torch.nonzero(match >= 0).squeeze(1)
        assert torch.equal(place[own], expected) and len(expected)
        assert torch.equal(boxes[own], one["boxes"][match[expected]])
        assert torch.equal(labels[own], one["labels"][match[expected]])
    nothing = detector.assign([target(), target()], anchors)
    assert all(not len(one) for one in nothing)


def test_of_two_boxes_with_one_best_anchor_both_stay_apart_where_they_can(tiny_backbone: Backbones) -> None:
    detector = retinanet(RECIPE, tiny_backbone())
    anchors = detector._anchors(images())
    both = target((10, 10, 34, 34), (10, 10, 35, 35), labels=(0, 1))
    _, place, boxes, labels = detector.assign([both], anchors)
    assert len(place) == len(set(place.tolist())), "an anchor answers for one box"
    assert set(labels.tolist()) == {0, 1}
    assert torch.equal(boxes, both["boxes"][labels])


def test_what_the_codes_say_is_what_is_detected(tiny_backbone: Backbones) -> None:
    detector = retinanet(replace(RECIPE, score_threshold=0.3), tiny_backbone()).eval()
    truth = target((4, 4, 30, 28), (36, 30, 60, 64), labels=(2, 1))
    anchors = detector._anchors(images())
    _, place, boxes, labels = detector.assign([truth], anchors)
    logits = torch.full((1, len(anchors), 3), -9.0)
    logits[0, place, labels] = 3.0
    codes = torch.zeros(1, len(anchors), 4)
    codes[0, place] = detector.coder.encode_single(boxes, anchors[place])
    detector._outputs = lambda _: (logits, codes)  # type: ignore[method-assign, assignment]
    found = detector.detections(images(1))[0]
    order = found["labels"].argsort(descending=True)
    assert found["labels"][order].tolist() == [2, 1]
    torch.testing.assert_close(found["boxes"][order], truth["boxes"], atol=1e-3, rtol=0)


def test_convolutions_are_shared_over_levels_and_normalisation_is_not(tiny_backbone: Backbones) -> None:
    recipe = replace(RECIPE, head_convs=3, head_channels=24, extra_levels=1)
    head = retinanet(recipe, tiny_backbone()).head
    for tower in (head.classes, head.boxes):
        assert [tuple(conv.weight.shape) for conv in tower.convs] == [  # type: ignore[union-attr]
            (24, 16, 3, 3),
            (24, 24, 3, 3),
            (24, 24, 3, 3),
        ]
        assert [len(norms) for norms in tower.norms] == [5, 5, 5]  # type: ignore[arg-type]
    head.train()
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn((2, 16, side, side), generator=generator) + side for side in (16, 8, 4, 2, 1)]
    head(maps)
    first = head.classes.norms[0]
    assert isinstance(first, nn.ModuleList)
    means = [norm.running_mean.clone() for norm in first]  # type: ignore[union-attr, operator]
    assert len({tuple(one.tolist()) for one in means}) == 5
    same = torch.randn((2, 16, 4, 4), generator=generator)
    head.eval()
    assert not torch.equal(head.classes(same, 0), head.classes(same, 4)), (
        "each level has statistics of its own"
    )


def test_first_scores_are_the_prior(tiny_backbone: Backbones) -> None:
    for convs, separable in ((0, False), (2, True)):
        recipe = replace(RECIPE, head_convs=convs, head_separable=separable)
        logits, codes = retinanet(recipe, tiny_backbone())._outputs(images())
        torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), atol=1e-3, rtol=0)
        assert codes.abs().max() < 0.01


def test_an_image_alone_can_train_a_level_of_one_cell(tiny_backbone: Backbones) -> None:
    detector = retinanet(replace(RECIPE, extra_levels=2), tiny_backbone()).train()
    terms = detector.losses(images(1), [target((2, 2, 60, 60))])
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(one.grad is not None and one.grad.isfinite().all() for one in detector.head.parameters())


def test_losses_are_float32_under_autocast(tiny_backbone: Backbones) -> None:
    detector = noisy(retinanet(RECIPE, tiny_backbone())).train()
    truth = target((4, 4, 30, 28), labels=(1,))
    plain = detector.losses(images(1), [truth])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = detector.losses(images(1), [truth])
    for name, value in cast.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.05)


def test_objects_by_level_follow_their_size(tiny_backbone: Backbones) -> None:
    recipe = replace(RECIPE, extra_levels=1)
    detector = retinanet(recipe, tiny_backbone(), side=256)
    for side, level in ((14.0, "c2"), (28.0, "c3"), (56.0, "c4"), (112.0, "c5"), (230.0, "extra1")):
        low, high = 130 - side / 2, 130 + side / 2
        found = detector.objects_by_level([target((low, low, high, high)), target()], (256, 256))
        assert list(found) == ["c2", "c3", "c4", "c5", "extra1"]
        assert found[level] == 1, (side, found)
        stride = dict(zip(found, detector.backbone.strides, strict=True))[level]
        assert recipe.object_side(stride) == pytest.approx(side, rel=0.1)
    assert sum(detector.objects_by_level([target()], (256, 256)).values()) == 0


def test_a_gamma_whose_gradient_is_not_finite_is_refused() -> None:
    with pytest.raises(FieldError, match=r"focal_gamma: found 0\.9; allowed is 0, or at least 1"):
        replace(RECIPE, focal_gamma=0.9)
