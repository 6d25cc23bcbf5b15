"""Cascade R-CNN: what each stage is asked, what it hands on, and whose scores count."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import box_iou

from trainers.data.detection_set import Target
from trainers.detectors.cascade_rcnn import CascadeHeads, CascadeRCNN
from trainers.detectors.catalog import build_detector
from trainers.recipes import DataRecipe, DetectorRecipe, require_masks
from trainers.seeding import torch_seed

Backbones = Callable[..., nn.Module]
RECIPE = DetectorRecipe(
    name="cascade_rcnn",
    fpn_channels=16,
    box_head=32,
    candidates=60,
    roi_batch=32,
    score_threshold=0.0,
    nms=0.99,
    detections=1000,
)
BOXES = torch.tensor([[10.0, 10.0, 40.0, 44.0], [30.0, 4.0, 60.0, 30.0]])


@pytest.fixture
def detector(tiny_backbone: Backbones) -> CascadeRCNN:
    found = build_detector(RECIPE, tiny_backbone(), 3, (64, 64), seed=0)
    assert isinstance(found, CascadeRCNN)
    # Codes begin near zero, and boxes that do not move would tell the stages from nothing.
    generator = torch.Generator().manual_seed(1)
    for stage in stages(found):
        nn.init.normal_(stage.box_predictor.bbox_pred.weight, std=0.3, generator=generator)
        nn.init.normal_(stage.box_predictor.cls_score.weight, std=0.3, generator=generator)
    return found


def stages(detector: CascadeRCNN) -> list[Any]:
    assert isinstance(detector.roi_heads, CascadeHeads)
    return list(detector.roi_heads.stages)


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)


def targets() -> list[Target]:
    return [
        Target(boxes=BOXES, labels=torch.tensor([0, 2]), image_id=1),
        Target(boxes=BOXES[:0], labels=torch.zeros(0, dtype=torch.int64), image_id=2),
    ]


def decoded(regions: Tensor, codes: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Boxes of codes by their definition (Ren et al. 2015, section 3.1.2), inside an image of 64 px."""
    size = regions[:, 2:] - regions[:, :2]
    centre = regions[:, :2] + size / 2
    moved = centre + codes[:, :2] / torch.tensor(weights[:2]) * size
    scaled = size * (codes[:, 2:] / torch.tensor(weights[2:])).exp()
    return torch.cat((moved - scaled / 2, moved + scaled / 2), dim=1).clamp(0, 64)


def test_stages_tighten(detector: CascadeRCNN) -> None:
    found = [
        (one.proposal_matcher.high_threshold, one.proposal_matcher.low_threshold, one.box_coder.weights)
        for one in stages(detector)
    ]
    assert found == [
        (0.5, 0.5, (10.0, 10.0, 5.0, 5.0)),
        (0.6, 0.6, (20.0, 20.0, 10.0, 10.0)),
        (0.7, 0.7, (30.0, 30.0, 15.0, 15.0)),
    ]
    for one in stages(detector):
        assert one.box_predictor.bbox_pred.out_features == 4, "one box for all classes"
        assert one.box_predictor.cls_score.out_features == 4
    assert len({id(parameter) for one in stages(detector) for parameter in one.parameters()}) == sum(
        len(list(one.parameters())) for one in stages(detector)
    )


def test_losses_are_those_of_the_definition(detector: CascadeRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage's regions, labels and codes are written down as it runs and computed anew from the paper."""
    detector.train()
    seen: list[dict[str, Any]] = []
    for one in stages(detector):
        pool, predict = one.box_roi_pool.forward, one.box_predictor.forward

        def pooled(maps: Any, regions: list[Tensor], sizes: Any, pool: Any = pool) -> Tensor:
            seen.append({"regions": [region.clone() for region in regions]})
            return pool(maps, regions, sizes)  # type: ignore[no-any-return]

        def predicted(x: Tensor, predict: Any = predict) -> Any:
            found = predict(x)
            seen[-1]["logits"], seen[-1]["codes"] = (each.detach().clone() for each in found)
            return found

        monkeypatch.setattr(one.box_roi_pool, "forward", pooled)
        monkeypatch.setattr(one.box_predictor, "forward", predicted)
    with torch_seed(0):
        terms = detector.losses(images(), targets())
    assert len(seen) == 3
    positives = []
    for number, (one, iou, weights, factor) in enumerate(
        zip(
            seen,
            (0.5, 0.6, 0.7),
            ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
            (1.0, 0.5, 0.25),
            strict=True,
        ),
        start=1,
    ):
        regions = one["regions"]
        assert [len(each) for each in regions] == [len(each) for each in seen[0]["regions"]]
        overlap, owner = box_iou(regions[0], BOXES).max(1)
        labels = torch.where(overlap >= iou, torch.tensor([1, 3])[owner], 0)
        labels = torch.cat((labels, torch.zeros(len(regions[1]), dtype=torch.int64)))
        positives.append(int((labels > 0).sum()))
        wanted = torch.zeros(len(labels), 4)
        size = regions[0][:, 2:] - regions[0][:, :2]
        aim = BOXES[owner][:, 2:] - BOXES[owner][:, :2]
        away = (BOXES[owner][:, :2] + aim / 2) - (regions[0][:, :2] + size / 2)
        codes = torch.cat((away / size, (aim / size).log()), dim=1) * torch.tensor(weights)
        positive = (labels > 0).nonzero()[:, 0]
        wanted[positive] = codes[positive]
        classes, boxes = fastrcnn_loss(one["logits"], one["codes"].repeat(1, 4), [labels], [wanted])
        assert terms[f"loss_classifier_{number}"].item() == pytest.approx(factor * float(classes), rel=1e-4)
        assert terms[f"loss_box_reg_{number}"].item() == pytest.approx(factor * float(boxes), rel=1e-4)
        if number < 3:
            following = torch.cat(seen[number]["regions"])
            torch.testing.assert_close(
                following, decoded(torch.cat(regions), one["codes"], weights), rtol=1e-4, atol=1e-3
            )
            assert not following.requires_grad
    assert positives[0] > 0 and len(set(positives)) > 1, "stages that agree would show nothing"


def test_scores_are_the_mean_of_the_stages_and_boxes_those_of_the_last(detector: CascadeRCNN) -> None:
    detector.eval()
    with torch.no_grad():
        maps, batch = detector._maps(images(1))
        regions, _ = detector.rpn(batch, maps)
        scores = []
        for one, weights in zip(
            stages(detector),
            ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
            strict=True,
        ):
            logits, codes = one.box_predictor(
                one.box_head(one.box_roi_pool(maps, regions, batch.image_sizes))
            )
            scores.append(logits.softmax(1))
            regions = [decoded(regions[0], codes, weights)]
        mean = torch.stack(scores).mean(0)[:, 1:]
        (found,) = detector.detections(images(1))
    assert len(found["scores"]) > 100
    for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True):
        near = ((regions[0] - box).abs().amax(1) < 1e-2).nonzero()[:, 0]
        assert len(near) and (mean[near, label] - score).abs().min() < 1e-5


def test_it_reads_no_masks_and_no_settings_of_others() -> None:
    require_masks(DataRecipe(root="x"), RECIPE)
    assert replace(RECIPE, rcnn_norm=True).object_side(8) == 8.0
