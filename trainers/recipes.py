"""What data, detector and training recipes may say. Plain dataclasses; no torch here."""

from dataclasses import dataclass, field
from typing import Literal

from search_spaces.recipe import Recipe

Amp = Literal["off", "bf16"]


@dataclass(frozen=True, kw_only=True)
class DigitsRecipe(Recipe):
    """Scenes composed from the handwritten digits that ship with scikit-learn.

    Args:
        train_images: scenes of the training split.
        val_images: scenes of ``val``; its digits occur in no training scene.
        image_size: side of a square scene, px.
        min_side: longer side of the smallest digits, px.
        max_side: longer side of the largest; sides are log-uniform between the two.
        max_objects: digits a scene holds at most.
        classes: which of the ten digits occur; fewer are learned sooner.
        seed: of everything; equal seeds give equal pixels.
    """

    train_images: int = 512
    val_images: int = 128
    image_size: int = 128
    min_side: float = 12.0
    max_side: float = 96.0
    max_objects: int = 6
    classes: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train_images < 2 or self.val_images < 1:
            raise ValueError("digits: train_images must be at least 2 and val_images at least 1")
        if not 4 <= self.min_side <= self.max_side <= self.image_size:
            raise ValueError(
                f"digits: needs 4 <= min_side <= max_side <= image_size; "
                f"found {self.min_side:g}, {self.max_side:g}, {self.image_size}"
            )
        if self.max_objects < 1:
            raise ValueError("digits: max_objects must be at least 1")
        if (
            not self.classes
            or len(set(self.classes)) != len(self.classes)
            or not set(self.classes) <= set(range(10))
        ):
            raise ValueError(
                f"digits: classes must be one or more distinct digits; found {list(self.classes)}"
            )


@dataclass(frozen=True, kw_only=True)
class DataRecipe(Recipe):
    """Which images, at which size.

    Args:
        source: ``coco``: a folder in COCO form; ``digits``: composed in memory, no file needed.
        root: the folder, with ``images/`` and ``annotations/{train,val}.json``; ``coco`` only.
        image_size: longest side in px, or ``(height, width)`` to fit into; the aspect ratio is kept either
            way. Left out: the pixels as stored.
        on_bad: ``error`` stops at bad images and annotations, ``skip`` drops and lists them.
        hold_out: share of the training split on which candidates are scored.
        digits: the scenes of ``digits``.
    """

    source: Literal["coco", "digits"] = "coco"
    root: str | None = None
    image_size: int | tuple[int, int] | None = None
    on_bad: Literal["error", "skip"] = "error"
    hold_out: float = 0.2
    digits: DigitsRecipe = field(default_factory=DigitsRecipe)

    def __post_init__(self) -> None:
        sides = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if any(side < 32 for side in sides):
            raise ValueError(f"image_size must be at least 32 px a side; found {self.image_size}")
        if not 0.0 < self.hold_out < 1.0:
            raise ValueError(f"hold_out is a share between 0 and 1; found {self.hold_out:g}")


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(Recipe):
    """The detector around a backbone.

    Args:
        name: ``fcos`` (Tian et al. 2019) or ``faster_rcnn`` (Ren et al. 2015), both torchvision's.
        pyramid: ``fpn`` (Lin et al. 2017) over the backbone's levels, or ``none`` for a backbone whose levels
            are a pyramid already, as SpineNet's.
        fpn_channels: width of every pyramid map and of the heads.
        levels: backbone levels that enter the pyramid, fine to coarse.
        extra_level: one more, coarser map: ``fcos`` by a stride-2 convolution, ``faster_rcnn`` by pooling.
        head_convs: 3x3 convolutions before each output; FCOS's paper has 4.
        shared_tower: FCOS's class and box outputs share those convolutions instead of having their own.
        anchor_scale: anchor side over stride. FCOS: a level answers for objects that reach 4 to 8 anchor
            sides from a location, the finest from 0. Faster R-CNN: side of the square anchor.
        score_threshold: detections below are dropped; lower than torchvision's 0.2, for AP needs the tail.
        nms: IoU above which the lower-scored detection of the same class is dropped.
        detections: kept an image at most.
        candidates: boxes an image that enter non-maximum suppression (FCOS) or proposals an image that
            enter the box head (Faster R-CNN).
        box_head: width of Faster R-CNN's two linear layers.
        roi_batch: regions an image sampled for Faster R-CNN's box loss.
    """

    name: Literal["fcos", "faster_rcnn"] = "fcos"
    pyramid: Literal["fpn", "none"] = "fpn"
    fpn_channels: int = 64
    levels: tuple[str, ...] = ("c2", "c3", "c4", "c5")
    extra_level: bool = False
    head_convs: int = 1
    shared_tower: bool = False
    anchor_scale: float = 1.0
    score_threshold: float = 0.05
    nms: float = 0.6
    detections: int = 100
    candidates: int = 400
    box_head: int = 256
    roi_batch: int = 128

    def __post_init__(self) -> None:
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(
                f"detector: levels must be one or more distinct names; found {list(self.levels)}"
            )
        if self.fpn_channels < 8 or self.fpn_channels % 8:
            raise ValueError(
                f"detector: fpn_channels must be a positive multiple of 8; found {self.fpn_channels}"
            )
        if self.head_convs < 0:
            raise ValueError(f"detector: head_convs must be 0 or more; found {self.head_convs}")
        if self.anchor_scale <= 0:
            raise ValueError(f"detector: anchor_scale must be positive; found {self.anchor_scale:g}")
        if not (0 <= self.score_threshold < 1 and 0 < self.nms < 1):
            raise ValueError("detector: score_threshold must be in [0, 1) and nms in (0, 1)")
        if min(self.detections, self.candidates, self.box_head, self.roi_batch) < 1:
            raise ValueError("detector: detections, candidates, box_head and roi_batch must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainRecipe(Recipe):
    """One training run; exactly one of ``epochs`` and ``steps`` is given.

    Args:
        epochs: passes over the training images; may be a fraction.
        steps: optimiser steps instead.
        batch_size: images a step.
        optimizer: ``sgd`` with momentum, or ``adamw``.
        lr: peak learning rate at this batch size.
        momentum: of ``sgd``.
        weight_decay: of either.
        warmup_steps: linear rise of the rate from lr / (warmup_steps + 1).
        schedule: ``cosine`` to zero, or ``milestones``.
        milestones: fractions of the run at which the rate is multiplied by ``gamma``.
        gamma: see ``milestones``.
        clip_norm: gradient norm is scaled down to this; 0 leaves it alone.
        amp: ``bf16`` autocast; on a CPU without bf16 units it is slower than ``off``.
        frozen_bn: BN of the backbone keeps its statistics and affine weights (for pretrained backbones).
        flip: mirror half of the images left to right.
        scale_jitter: images of a step are resized by one factor drawn between these two, log-uniform.
        evaluate_every: epochs between evaluations; 0: only at three quarters of the run and after the last step.
        checkpoint_every: steps between checkpoints; 0: only at evaluations and at the end.
    """

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    schedule: Literal["cosine", "milestones"] = "cosine"
    milestones: tuple[float, ...] = (0.67, 0.89)
    gamma: float = 0.1
    clip_norm: float = 10.0
    amp: Amp = "off"
    frozen_bn: bool = False
    flip: bool = True
    scale_jitter: tuple[float, float] | None = None
    evaluate_every: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"train: give exactly one of epochs ({self.epochs}) and steps ({self.steps})")
        if (self.epochs is not None and self.epochs <= 0) or (self.steps is not None and self.steps < 1):
            raise ValueError("train: epochs must be positive, steps at least 1")
        if self.batch_size < 1:
            raise ValueError(f"train: batch_size must be at least 1; found {self.batch_size}")
        if self.lr <= 0 or self.weight_decay < 0 or self.clip_norm < 0 or not 0 <= self.momentum < 1:
            raise ValueError(
                "train: lr must be positive, weight_decay and clip_norm 0 or more, momentum in [0, 1)"
            )
        if self.warmup_steps < 0 or self.evaluate_every < 0 or self.checkpoint_every < 0:
            raise ValueError("train: warmup_steps, evaluate_every and checkpoint_every must be 0 or more")
        if any(not 0 < point < 1 for point in self.milestones) or list(self.milestones) != sorted(
            self.milestones
        ):
            raise ValueError(
                f"train: milestones are rising fractions of the run, between 0 and 1; found {self.milestones}"
            )
        if self.scale_jitter is not None and not 0.1 <= self.scale_jitter[0] <= self.scale_jitter[1] <= 4.0:
            raise ValueError(f"train: scale_jitter needs 0.1 <= low <= high <= 4; found {self.scale_jitter}")
