"""What every detector keeps, checked around small backbones; :mod:`nas.testing` is the door to it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from search_spaces.architecture import Architecture, Genes
from search_spaces.families import family_of
from search_spaces.spinenet.zoo import ZOO, proxy
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet, Target
from trainers.data.masks import encode_mask
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detections, Detector
from trainers.evaluate import coco_metrics, detect
from trainers.loop import Trainer
from trainers.recalibration import recalibrated
from trainers.recipes import Amp, DetectorRecipe, TrainRecipe
from trainers.seeding import torch_seed

_Box = tuple[float, float, float, float]
_CPU = torch.device("cpu")
# Steps between two looks at a batch that is learned by heart.
_LOOK_EVERY = 20
_BODY = "backbone."
_AMPS: tuple[Amp, ...] = ("off", "bf16")
# (x, y, width, height) in parts of the side, of the objects of each picture.
_OBJECTS = (
    ((0.05, 0.1, 0.5, 0.375), (0.4, 0.6, 0.3, 0.3)),
    ((0.1, 0.05, 0.3, 0.3), (0.5, 0.1, 0.4, 0.45)),
)
# (height, width) of each picture in parts of the side, and how much larger it was on disk.
_PICTURES = (((1.0, 0.75), 1.0), ((0.625, 1.0), 2.0))


def pictures(side: int, classes: int) -> DetectionSet:
    """Two pictures of different shape and scale with two filled rectangles each, whose colour is their class."""
    colours = np.random.default_rng(0).integers(0, 256, (classes, 3))
    found, boxes = [], list[BoxEntry]()
    for index, ((shape, scale), objects) in enumerate(zip(_PICTURES, _OBJECTS, strict=True), start=1):
        height, width = (round(side * one) for one in shape)
        pixels = np.full((height, width, 3), 128, dtype=np.uint8)
        size = (round(height * scale), round(width * scale))
        for one in objects:
            x, y, w, h = (round(side * part) for part in one)
            label = len(boxes) % classes
            pixels[y : y + h, x : x + w] = colours[label]
            box = (scale * x, scale * y, scale * w, scale * h)
            mask = np.zeros(size, dtype=np.uint8)
            mask[round(box[1]) : round(box[1] + box[3]), round(box[0]) : round(box[0] + box[2])] = 1
            boxes.append(
                BoxEntry(
                    id=len(boxes) + 1,
                    image_id=index,
                    category_id=label + 1,
                    box=box,
                    area=box[2] * box[3],
                    crowd=False,
                    mask=encode_mask(mask),
                )
            )
        found.append((ImageEntry(id=index, file_name=f"{index}.png", size=None), pixels, size))
    return assemble(
        pictures=found,
        boxes=tuple(boxes),
        categories=tuple(Category(label + 1, f"class {label}") for label in range(classes)),
        canvas=(side, side),
        digest=f"pictures {side} {classes}",
        masks=True,
    )


RESNET = Architecture(
    family="crnas.resnet",
    settings=Genes(
        {"block": "basic", "widths": (8, 8, 8, 8), "stem": "small", "groups": 1, "width_per_group": 64}
    ),
    genes=Genes({"blocks": (1, 1, 1, 1), "dilations": (1, 1, 1, 1)}),
)
"""Levels c2 to c5 at strides 4 to 32."""
SPINENET = replace(
    ZOO["spinenet49"],
    genes=Genes(
        {
            "levels": (3, 4, 5, 6, 7),
            "types": ("bottleneck",) * 5,
            "parents": ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5)),
        }
    ),
)
"""Two blocks of the stem, and levels p3 to p7 at strides 8 to 128."""


def small_detector(recipe: DetectorRecipe, side: int, classes: int, *, seed: int = 0) -> Detector:
    """Around a small network: a SpineNet where the recipe has no pyramid, else a ResNet."""
    pyramid = proxy(SPINENET, width=0.125, endpoint=recipe.fpn_channels)
    network = pyramid if recipe.pyramid == "none" else RESNET
    backbone = family_of(network).build(network, seed=seed)
    return build_detector(recipe, backbone, classes, (side, side), seed=seed)


def default_side(recipe: DetectorRecipe) -> int:
    """Of the square images, px: what the coarsest level of the small network divides."""
    return 128 if recipe.pyramid == "none" else 64


def keeps_contract(recipe: DetectorRecipe, side: int, classes: int) -> None:
    """All that can be checked without a training of some length.

    Raises:
        AssertionError: what is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, side, side), generator=generator, dtype=torch.uint8)

    def made(seed: int = 0) -> Detector:
        return small_detector(recipe, side, classes, seed=seed)

    _is_decided_by_its_seed(made(), made())
    _learns_from_any_targets(made().train(), images, side, classes)
    model = made().eval()
    _detects(model, images, recipe, classes)
    _comes_back(model, made(1).eval(), images)
    for amp in _AMPS:
        _takes_a_step(made(), pictures(side, classes), amp)


def learns(
    recipe: DetectorRecipe, side: int, classes: int, *, steps: int, lr: float, least: float
) -> tuple[int, float]:
    """Train on one batch until it is known by heart.

    Normalisation at evaluation is by the statistics of that batch: running ones follow for hundreds of steps.

    Returns:
        Steps that it took, and the AP reached.

    Raises:
        AssertionError: it takes longer.
    """
    data, model = pictures(side, classes), small_detector(recipe, side, classes)
    train = TrainRecipe(
        steps=steps, batch_size=len(data), lr=lr, flip=False, warmup_steps=10, weight_decay=0.0
    )
    trainer = Trainer(detector=model, data=data, recipe=train, seed=0, directory=None, device=_CPU)
    reached: list[float] = []
    for step in range(_LOOK_EVERY, steps + 1, _LOOK_EVERY):
        trainer.run(step)
        with recalibrated(model, [data.images[:]]):
            found = coco_metrics(data, detect(model, data, device=_CPU))
        reached.append(min(found.AP, 1.0 if found.masks is None else found.masks.AP))
        if reached[-1] > least:
            return step, reached[-1]
    raise AssertionError(
        f"after {steps} steps on one batch of {len(data)} images AP is {reached[-1]:.2f}, of {max(reached):.2f} at "
        f"best; needed is more than {least:g}. Look at the assignment of objects, the box codes and the learning rate"
    )


def _is_decided_by_its_seed(model: Detector, same: Detector) -> None:
    weights = zip(model.state_dict().items(), same.state_dict().values(), strict=True)
    odd = [name for (name, one), other in weights if not torch.equal(one, other)]
    assert not odd, f"one seed gave two sets of weights: {odd[:3]}; draw them from torch's global generator"


def _learns_from_any_targets(model: Detector, images: Tensor, side: int, classes: int) -> None:
    """Finite losses and gradients whatever an image holds, and gradients everywhere where it holds something."""
    whole = tuple((1.0, 2.0, 1.0 + one, 2.0 + 0.95 * one) for one in _sides(side))
    pixel, speck = (3.0, 3.0, 4.0, 4.0), (10.2, 10.2, 10.3, 10.3)
    flat = (0.0, side / 2, float(side), side / 2 + 1)
    scenes: dict[str, tuple[Sequence[_Box], ...]] = {
        "objects for every level": (whole, whole, whole),
        "one image without objects": (whole, (), whole),
        "no object at all": ((), (), ()),
        "boxes of one pixel": ((pixel,), (pixel, (side - 1.0, side - 1.0, side, side)), ()),
        "a box below a pixel, and one of the whole image": ((speck,), ((0.0, 0.0, side, side),), ()),
        "five boxes in one place, and one a pixel high": ((whole[1],) * 5, (flat,), ()),
    }
    for scene, boxes in scenes.items():
        targets = [_target(one, side, classes) for one in boxes]
        model.zero_grad()
        with torch_seed(0):
            terms = model.losses(images, targets)
        for name, term in terms.items():
            assert term.shape == () and bool(torch.isfinite(term)), (
                f"loss {name} is {term} with {scene}; needed is one number"
            )
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        odd = [
            name
            for name, one in model.named_parameters()
            if one.grad is not None and not bool(torch.isfinite(one.grad).all())
        ]
        assert not odd, f"the gradient of {odd} is not finite with {scene}"
        if all(boxes):
            missing = [name for name, one in model.named_parameters() if one.grad is None]
            assert not missing, f"no gradient reaches {missing}"


def _takes_a_step(model: Detector, data: DetectionSet, amp: Amp) -> None:
    """A step of the one training loop, on pictures of several sizes, moves the weights; then it is evaluated."""
    with torch.inference_mode():
        # As a search scores it; a tensor kept from there could not be learned through.
        detect(model, data, device=_CPU, amp=amp)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    train = TrainRecipe(steps=1, batch_size=len(data), warmup_steps=0, lr=1e-3, amp=amp)
    Trainer(detector=model, data=data, recipe=train, seed=0, directory=None, device=_CPU).run()
    odd = [name for name, one in model.named_parameters() if not bool(torch.isfinite(one).all())]
    assert not odd, f"after a step with amp {amp} {odd} are not finite"
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    below = {name for name in before if name.startswith(_BODY)}
    for part in (below, before.keys() - below):
        assert moved & part, f"a step with amp {amp} left {sorted(part)} where they were"
    for one in detect(model, data, device=_CPU, amp=amp):
        x, y, width, height = one["bbox"]
        index = data.image_ids.index(one["image_id"])
        inside = (
            x >= 0 and y >= 0 and x + width <= data.sizes[index][1] and y + height <= data.sizes[index][0]
        )
        assert inside and np.isfinite(one["score"]), f"with amp {amp} it finds {one}"


def _detects(model: Detector, images: Tensor, recipe: DetectorRecipe, classes: int) -> None:
    state = {name: one.clone() for name, one in model.state_dict().items()}
    with torch.no_grad():
        found, again = model.detections(images), model.detections(images)
        scaled = model.detections(images.float() / 255.0)
        alone = [model.detections(images[index : index + 1])[0] for index in range(len(images))]
    assert len(found) == len(images), f"{len(images)} images gave {len(found)} results"
    changed = [name for name, one in model.state_dict().items() if not torch.equal(one, state[name])]
    assert not changed, f"detection in evaluation mode changed {changed}"
    for one in found:
        _is_in_form(one, recipe, classes, int(images.shape[-1]))
    for one, repeated, other, single in zip(found, again, scaled, alone, strict=True):
        assert all(torch.equal(*pair) for pair in zip(_tensors(one), _tensors(repeated), strict=True)), (
            "the same images gave other boxes"
        )
        assert other["boxes"].shape == one["boxes"].shape, (
            "bytes and floats from 0 to 1 gave different detections"
        )
        assert single["boxes"].shape == one["boxes"].shape and torch.allclose(
            single["scores"], one["scores"], rtol=1e-4, atol=1e-6
        ), "an image gave other detections beside other images"


def _is_in_form(one: Detections, recipe: DetectorRecipe, classes: int, side: int) -> None:
    count = len(one["boxes"])
    assert one["boxes"].shape == (count, 4) and len(one["scores"]) == len(one["labels"]) == count
    assert count <= recipe.detections, f"found {count} boxes; the recipe allows {recipe.detections}"
    assert one["labels"].dtype == torch.int64, "labels must be int64"
    assert all(0 <= label < classes for label in one["labels"].tolist()), "labels go from 0"
    scores = one["scores"].tolist()
    assert scores == sorted(scores, reverse=True), "scores must fall"
    assert all(recipe.score_threshold <= score <= 1 for score in scores), (
        "scores below the threshold, or above 1"
    )
    boxes = one["boxes"]
    assert not count or (boxes.min() >= 0 and boxes.max() <= side), "boxes must end at the image's edge"
    assert bool((boxes[:, 2:] >= boxes[:, :2]).all()), "boxes are x1 y1 x2 y2"
    if "masks" in one:
        masks = one["masks"]
        assert masks.shape == (count, masks.shape[-1], masks.shape[-1]), f"masks are {tuple(masks.shape)}"
        assert not count or (masks.min() >= 0 and masks.max() <= 1), "masks are probabilities"


def _comes_back(model: Detector, other: Detector, images: Tensor) -> None:
    """What a file of weights holds is all that detections depend on."""
    state = {name: one.contiguous() for name, one in model.state_dict().items()}
    other.load_state_dict(load(save(state)))
    with torch.no_grad():
        pairs = zip(model.detections(images), other.detections(images), strict=True)
    same = all(
        len(first) == len(second) and all(map(torch.equal, _tensors(first), _tensors(second)))
        for first, second in pairs
    )
    assert same, (
        "a detector with the weights of another finds other boxes; keep what it needs in its state_dict"
    )


def _tensors(found: Detections) -> list[Tensor]:
    return [one for one in found.values() if isinstance(one, Tensor)]


def _sides(side: int) -> tuple[float, ...]:
    """Of objects for every level, from the smallest to nearly the whole image."""
    return (side / 8, side / 4, side / 2, side * 0.95)


def _target(boxes: Sequence[_Box], side: int, classes: int) -> Target:
    """Boxes, and masks that fill them, which are one more key for all that learn no masks."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(-(-bottom // 1)), int(left) : int(-(-right // 1))] = 1
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)) % classes,
        image_id=1,
        masks=masks,
    )
