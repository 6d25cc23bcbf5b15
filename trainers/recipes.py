"""What data, detector and training recipes may say. Plain dataclasses; no torch here."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from search_spaces.recipe import FieldError, Recipe
from search_spaces.targets import bare
from trainers.data.sizing import Fit

Amp = Literal["off", "bf16"]
Pyramid = Literal["fpn", "pafpn", "none"]

RETINANET_OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sides of RetinaNet's anchors at one place, over the smallest (Lin et al. 2017, section 4)."""
_TWO_STAGES = ("faster_rcnn", "mask_rcnn", "cascade_rcnn")
# Fields that only some detectors read; the others refuse them where they are set.
_READ_BY = {
    "shared_tower": ("fcos",),
    "box_head": _TWO_STAGES,
    "box_convs": _TWO_STAGES,
    "rcnn_norm": _TWO_STAGES,
    "norm_momentum": ("retinanet", *_TWO_STAGES),
    "norm_eps": ("retinanet", *_TWO_STAGES),
    "roi_batch": _TWO_STAGES,
    "roi_scale": _TWO_STAGES,
    "mask_convs": ("mask_rcnn",),
    "mask_channels": ("mask_rcnn",),
    "head_channels": ("retinanet", *_TWO_STAGES),
    "head_activation": ("retinanet",),
    "head_separable": ("retinanet",),
    "focal_alpha": ("retinanet",),
    "focal_gamma": ("retinanet",),
    "huber_delta": ("retinanet",),
    "box_weight": ("retinanet",),
}


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
        self.require("train_images", self.train_images >= 2, "at least 2")
        self.require("val_images", self.val_images >= 1, "at least 1")
        self.require("min_side", self.min_side >= 4, "at least 4 px")
        self.require("max_side", self.max_side >= self.min_side, f"at least min_side, {self.min_side:g} px")
        self.require(
            "image_size", self.image_size >= self.max_side, f"at least max_side, {self.max_side:g} px"
        )
        self.require("max_objects", self.max_objects >= 1, "at least 1")
        distinct = len(set(self.classes)) == len(self.classes)
        self.require(
            "classes",
            bool(self.classes) and distinct and set(self.classes) <= set(range(10)),
            "one or more distinct digits from 0 to 9",
        )


@dataclass(frozen=True, kw_only=True)
class DataRecipe(Recipe):
    """Which images, at which size.

    Args:
        source: ``coco``: a folder in COCO form; ``digits``: composed in memory, no file needed.
        root: the folder, with ``images/`` and ``annotations/{train,val}.json``; ``coco`` only.
        image_size: longest side in px, or ``(height, width)`` to fit into; the aspect ratio is kept either
            way. Left out: the pixels as stored.
        orientation: ``either``: a (height, width) holds for pictures lying and standing, as other libraries' limits of
            the shorter and the longer side do, and batches are of one orientation as far as that goes. ``fixed``: every
            picture is fitted into the one size and padded to it. ``either`` is for trainings only.
        on_bad: ``error`` stops at bad images and annotations, ``skip`` drops and lists them.
        masks: read the objects' masks too, which ``mask_rcnn`` learns from: COCO's ``segmentation``, or the ink of the
            digits.
        hold_out: share of the training split on which candidates are scored.
        licence: of the images, as bundles state it; what the annotation file says when left out.
        cache: folder on a disk of the machine for decoded pixels, in one file a split that is written once and that all
            processes read; without it each of them decodes and holds all pixels in memory. ``coco`` only.
        digits: the scenes of ``digits``.
    """

    source: Literal["coco", "digits"] = "coco"
    root: str | None = None
    image_size: int | tuple[int, int] | None = None
    orientation: Literal["fixed", "either"] = "fixed"
    on_bad: Literal["error", "skip"] = "error"
    masks: bool = False
    hold_out: float = 0.2
    licence: str | None = None
    cache: str | None = None
    digits: DigitsRecipe = field(default_factory=DigitsRecipe)

    def __post_init__(self) -> None:
        sides = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        self.require("image_size", all(side >= 32 for side in sides), "at least 32 px a side")
        self.require(
            "orientation",
            self.orientation == "fixed" or isinstance(self.image_size, tuple),
            "fixed without an image_size of [height, width]",
        )
        self.require("hold_out", 0.0 < self.hold_out < 1.0, "a share between 0 and 1")

    @property
    def fit(self) -> Fit:
        """How pictures are resized."""
        return Fit(self.image_size, self.orientation == "either")


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(Recipe):
    """The detector around a backbone. A field that only other detectors read keeps its default.

    Args:
        name: ``faster_rcnn`` (Ren et al. 2015) is torchvision's; ``fcos`` (Tian et al. 2019) is built from
            torchvision's losses and operations, its assignment is that of torchvision's; ``retinanet`` (Lin et
            al. 2017) has the head, anchors and losses with which Du et al. 2020 train SpineNet; ``mask_rcnn`` (He
            et al. 2017) is Faster R-CNN with a mask for every box and learns from a set with ``data.masks``;
            ``cascade_rcnn`` (Cai and Vasconcelos 2018) has three box heads in a row, for IoU 0.5, 0.6 and 0.7.
            What is said of Faster R-CNN below holds for these two too. ``fcos`` when left out and no ``target`` is
            given.
        target: your own detector instead, ``my_file.py:MyDetector``, the file relative to the recipe.
        options: of that detector, by the argument names of its constructor.
        pyramid: ``fpn`` (Lin et al. 2017) over the backbone's levels; ``pafpn`` (Liu et al. 2018), the same with a
            path back from fine to coarse; or ``none`` for a backbone whose levels are a pyramid already, as
            SpineNet's.
        fpn_channels: width of every pyramid map and of the heads.
        levels: backbone levels that enter the pyramid, fine to coarse.
        extra_levels: 0, 1 or 2 further maps, each half the size of the one before: ``fcos`` and ``retinanet`` by
            stride-2 convolutions, ``faster_rcnn`` by pooling. Over c3 to c5 two of them make P3 to P7.
        head_convs: 3x3 convolutions before each output; the papers of FCOS and RetinaNet have 4, SpineNet-190 7.
        head_channels: width of RetinaNet's towers; with ``rcnn_norm``, of Faster R-CNN's convolutions before its
            proposals and in its box head, which SpineNet-190 has narrower than its maps; ``null``: that of the maps.
        head_activation: of RetinaNet's towers.
        head_separable: RetinaNet's 3x3 convolutions are depthwise, followed by 1x1 (Du et al. 2020, appendix A).
        shared_tower: FCOS's class and box outputs share those convolutions instead of having their own.
        anchor_scale: anchor side over stride. FCOS: a level answers for objects that reach 4 to 8 anchor
            sides from a location, the finest from 0. Faster R-CNN: side of the square anchor. RetinaNet: of the
            smallest of three; Du et al. 2020 have 3, and 4 for their largest networks.
        focal_alpha: weight of positive anchors in RetinaNet's focal loss, that of the others is the rest to 1.
        focal_gamma: how much less that loss counts what is already right.
        huber_delta: where RetinaNet's box loss turns from a square to a line, in units of the box codes.
        box_weight: of RetinaNet's box loss, which is a mean over four codes.
        score_threshold: detections below are dropped; lower than torchvision's 0.2, for AP needs the tail.
        nms: IoU above which the lower-scored detection of the same class is dropped.
        detections: kept an image at most.
        candidates: boxes an image that enter non-maximum suppression (FCOS, RetinaNet) or proposals an image
            that enter the box head (Faster R-CNN).
        box_head: width of Faster R-CNN's two linear layers, or of its one behind convolutions.
        box_convs: 3x3 convolutions with batch normalisation in Faster R-CNN's box head; 0 for a second linear layer in
            their place. Du et al. 2020 have 4.
        rcnn_norm: batch normalisation where Faster R-CNN has none: behind the convolutions of its proposals, one a
            level, and behind its linear layers. Du et al. 2020 have it.
        norm_momentum: of batch normalisation in the heads, as torch counts it: the share of a batch in the running
            statistics. Du et al. 2020 have 0.01 (which they call a decay of 0.99); a training of a few hundred steps is
            too short for that. FCOS has other normalisation; that of the backbone is the backbone's own.
        norm_eps: added to the variance there; ``null``: 1e-3 in RetinaNet's towers and before Faster R-CNN's proposals,
            torch's 1e-5 in heads of regions. Du et al. 2020 have 1e-3.
        roi_batch: regions an image sampled for Faster R-CNN's box loss.
        roi_scale: Faster R-CNN pools a region from the level whose stride its side is this many times to twice as
            many; Lin et al. 2017 have 224 px at stride 16. In small images all regions come from the finest level
            unless it is lowered as ``anchor_scale`` is.
        mask_convs: 3x3 convolutions with batch normalisation in Mask R-CNN's mask head.
        mask_channels: their width; ``null``: that of the maps.
    """

    name: Literal["fcos", "faster_rcnn", "retinanet", "mask_rcnn", "cascade_rcnn"] | None = None
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pyramid: Pyramid = "fpn"
    fpn_channels: int = 64
    levels: tuple[str, ...] = ("c2", "c3", "c4", "c5")
    extra_levels: int = 0
    head_convs: int = 1
    head_channels: int | None = None
    head_activation: Literal["relu", "swish"] = "relu"
    head_separable: bool = False
    shared_tower: bool = False
    anchor_scale: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 1.5
    huber_delta: float = 0.1
    box_weight: float = 50.0
    score_threshold: float = 0.05
    nms: float = 0.6
    detections: int = 100
    candidates: int = 400
    box_head: int = 256
    box_convs: int = 0
    rcnn_norm: bool = False
    norm_momentum: float = 0.1
    norm_eps: float | None = None
    roi_batch: int = 128
    roi_scale: float = 14.0
    mask_convs: int = 4
    mask_channels: int | None = None

    @property
    def kind(self) -> str:
        """What a person calls the detector: its name in the catalog, or the target of their own."""
        return self.name or bare(self.target or "")

    def object_side(self, stride: int) -> float:
        """Side in px of what a level looks for: its anchor, the middle one of RetinaNet's three, or for FCOS the
        largest object that it answers for from the object's centre, whose sides are 8 anchors away (Tian et al.
        2019, section 3.2)."""
        anchors = {"fcos": 16.0, "retinanet": RETINANET_OCTAVES[1]}.get(self.name or "", 1.0)
        return stride * self.anchor_scale * anchors

    def __post_init__(self) -> None:
        if self.target is None and self.name is None:
            # Written out, so that a resolved recipe says which detector it was.
            object.__setattr__(self, "name", "fcos")
        self.require(
            "target", self.target is None or self.name is None, "null beside a name; give one of the two"
        )
        self.require("options", self.target is not None or not self.options, "{} without a target")
        for one in fields(self):
            readers = _READ_BY.get(one.name)
            self.require(
                one.name,
                # Nobody knows what a detector of a person's own reads.
                readers is None
                or self.name is None
                or self.name in readers
                or getattr(self, one.name) == one.default,
                f"{one.default!r} for {self.name}, which does not read it (only {' and '.join(readers or ())})",
            )
        distinct = len(set(self.levels)) == len(self.levels)
        self.require("levels", bool(self.levels) and distinct, "one or more distinct names")
        self.require(
            "fpn_channels",
            self.fpn_channels >= 8 and self.fpn_channels % 8 == 0,
            "a positive multiple of 8",
        )
        self.require("extra_levels", 0 <= self.extra_levels <= 2, "0, 1 or 2")
        self.require("head_convs", self.head_convs >= 0, "0 or more")
        self.require(
            "head_channels", self.head_channels is None or self.head_channels >= 1, "at least 1, or null"
        )
        self.require(
            "head_channels",
            self.head_channels is None or self.name not in _TWO_STAGES or self.rcnn_norm,
            f"null for {self.name} without rcnn_norm, whose convolutions are as wide as the maps",
        )
        self.require("box_convs", self.box_convs >= 0, "0 or more")
        self.require("norm_momentum", 0 < self.norm_momentum <= 1, "a share above 0, at most 1")
        self.require("norm_eps", self.norm_eps is None or self.norm_eps > 0, "above 0, or null")
        self.require("roi_scale", self.roi_scale > 0, "above 0")
        self.require("mask_convs", self.mask_convs >= 0, "0 or more")
        self.require(
            "mask_channels", self.mask_channels is None or self.mask_channels >= 1, "at least 1, or null"
        )
        self.require("focal_alpha", 0 < self.focal_alpha < 1, "between 0 and 1")
        # Below 1 the gradient of what is right already is infinite.
        self.require("focal_gamma", self.focal_gamma == 0 or self.focal_gamma >= 1, "0, or at least 1")
        self.require("huber_delta", self.huber_delta > 0, "above 0")
        self.require("box_weight", self.box_weight > 0, "above 0")
        self.require("anchor_scale", self.anchor_scale > 0, "above 0")
        self.require("score_threshold", 0 <= self.score_threshold < 1, "from 0 to below 1")
        self.require("nms", 0 < self.nms < 1, "between 0 and 1")
        for name in ("detections", "candidates", "box_head", "roi_batch"):
            self.require(name, getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ImageFolderRecipe(Recipe):
    """Labelled images: ``root/train/CLASS/*.jpg`` and ``root/val/CLASS/*.jpg``, a folder a class.

    Args:
        root: the folder.
        image_size: side in px of the square that is trained on and evaluated; a multiple of 32.
        crop_area: what share of an image's area a training crop has, between these two (Szegedy et al. 2015).
        crop_ratio: width over height of a training crop, between these two.
        crop_share: side of the square in the middle that is evaluated, over the image's shorter side.
        check: decode every image once before anything is trained, so that a damaged one is known at once. Off, the
            set's identity are names and sizes of its files, for images too many to look at.
        on_bad: ``error`` stops at files that are no images, ``skip`` leaves them out and lists them.
        loaders: threads that decode and crop the images of the next step while this one is computed; 0: none. The
            images are the same.
    """

    root: str | None = None
    image_size: int = 224
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    crop_share: float = 0.875
    check: bool = True
    on_bad: Literal["error", "skip"] = "error"
    loaders: int = 0

    def __post_init__(self) -> None:
        self.require("image_size", self.image_size >= 32 and self.image_size % 32 == 0, "a multiple of 32 px")
        low, high = self.crop_area
        self.require("crop_area", 0 < low <= high <= 1, "two shares with 0 < low <= high <= 1")
        low, high = self.crop_ratio
        self.require("crop_ratio", 0 < low <= high, "two ratios with 0 < low <= high")
        self.require("crop_share", 0 < self.crop_share <= 1, "a share above 0, at most 1")
        self.require("loaders", self.loaders >= 0, "0 or more")


def require_masks(data: DataRecipe, detector: DetectorRecipe) -> None:
    """Masks are read where the detector learns from them, and nowhere else.

    Raises:
        FieldError: naming ``data.masks``.
    """
    wanted = detector.name == "mask_rcnn"
    if data.masks != wanted:
        allowed = (
            "true, for it learns from masks" if wanted else "false, for it reads no masks; mask_rcnn does"
        )
        raise FieldError("data.masks", data.masks, f"allowed for detector {detector.name} is {allowed}")


def refuse_auto(train: "TrainRecipe") -> None:
    """Networks that are compared are trained in one precision, wherever each of them is trained.

    Raises:
        FieldError: naming ``train.amp``.
    """
    if train.amp == "auto":
        raise FieldError(
            "train.amp",
            train.amp,
            "allowed in a search are off and bf16, for its networks are compared and another machine may take another",
        )


@dataclass(frozen=True, kw_only=True)
class TrainRecipe(Recipe):
    """One training run; exactly one of ``epochs`` and ``steps`` is given.

    Args:
        epochs: passes over the training images; may be a fraction.
        steps: optimiser steps instead.
        batch_size: images a step, those of all ranks and micro-batches together.
        accumulate: micro-batches that a step's images are cut into; their gradients are averaged before the weights
            move, so that a large batch fits into a small memory. Every micro-batch counts the same. Two things are
            not as in one large batch: batch normalisation sees a micro-batch at a time (and moves its running
            statistics as often), and what a loss divides by (positive locations, sampled regions) is counted in a
            micro-batch.
        optimizer: ``sgd`` with momentum, or ``adamw``.
        lr: peak learning rate.
        lr_batch: batch size that ``lr`` and ``warmup_lr`` are meant for; at another one both are multiplied by
            batch_size / lr_batch (the linear rule, Goyal et al. 2017, section 2.1). Left out: they are taken as
            they are.
        momentum: of ``sgd``.
        weight_decay: of either.
        warmup_steps: of the linear rise of the rate to ``lr``.
        warmup_lr: where the rise begins; lr / (warmup_steps + 1) when left out.
        schedule: ``cosine`` to zero; ``milestones`` or ``final_epochs``: in jumps, where the field of that name says.
        milestones: fractions of the run at which the rate is multiplied by ``gamma``.
        final_epochs: the same counted from the end: [30, 10] multiplies it 30 and once more 10 epochs before it.
        gamma: see ``milestones``.
        clip_norm: gradient norm is scaled down to this; 0 leaves it alone.
        amp: ``bf16`` autocast; faster than ``off`` on a CPU with AMX or the bf16 instructions of AVX-512, the more the
            wider the network (docs/evidence.md), slower on one without; refused on a GPU without bf16 arithmetic.
            ``auto``: whichever of the two is faster where the training begins, for all of its ranks. It is then part of
            the training's record and stays so wherever the training goes on. Searches refuse it, for their networks are
            compared.
        compile: ``torch.compile`` of the backbone; costs minutes before the first step.
        frozen_bn: BN of the backbone keeps its statistics and affine weights (for pretrained backbones).
        drop_path: rate of stochastic depth, that of the last block, for backbones that have it (SpineNet).
        flip: mirror half of the images left to right.
        scale_jitter: every image is resized by a factor drawn uniformly between these two, then cropped at random
            or padded to its former size.
        sizes: factors of the size at which images are stored; each step draws one, for all of its images, and
            resizes them to it, both sides rounded to multiples of the backbone's largest stride. None: the stored
            size, which is that of every evaluation in any case.
        ema: decay of an exponential moving average of the weights, which is then what is evaluated and kept. At a
            weight's n-th move the decay is min(ema, (1 + n) / (10 + n)), so that short trainings are averaged too;
            statistics of batch normalisation are those of the training.
        evaluate_every: epochs between evaluations; 0: only at three quarters of the run and after the last step.
        checkpoint_every: steps between checkpoints; 0: only at evaluations and at the end.
    """

    __why__: ClassVar[dict[str, str]] = {
        "amp": "bf16 has the range of float32; gradients in fp16 would need a scaled loss, which there is not here"
    }

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    warmup_lr: float | None = None
    schedule: Literal["cosine", "milestones", "final_epochs"] = "cosine"
    milestones: tuple[float, ...] = (0.67, 0.89)
    final_epochs: tuple[float, ...] = ()
    gamma: float = 0.1
    clip_norm: float = 10.0
    amp: Literal["off", "bf16", "auto"] = "off"
    compile: bool = False
    frozen_bn: bool = False
    drop_path: float = 0.0
    flip: bool = True
    scale_jitter: tuple[float, float] | None = None
    sizes: tuple[float, ...] = ()
    ema: float | None = None
    evaluate_every: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise FieldError(
                "steps",
                self.steps,
                f"give exactly one of epochs ({self.epochs}) and steps ({self.steps}), the other is null",
            )
        self.require("epochs", self.epochs is None or self.epochs > 0, "above 0")
        self.require("steps", self.steps is None or self.steps >= 1, "at least 1")
        self.require("batch_size", self.batch_size >= 1, "at least 1")
        self.require(
            "accumulate",
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            f"divisors of batch_size, {self.batch_size}, the images of all micro-batches together",
        )
        self.require("lr", self.lr > 0, "above 0")
        self.require("lr_batch", self.lr_batch is None or self.lr_batch >= 1, "at least 1, or null")
        self.require(
            "warmup_lr",
            self.warmup_lr is None or 0 <= self.warmup_lr <= self.lr,
            f"from 0 to lr, {self.lr:g}, or null",
        )
        self.require("momentum", 0 <= self.momentum < 1, "from 0 to below 1")
        for name in ("weight_decay", "clip_norm", "warmup_steps", "evaluate_every", "checkpoint_every"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        rising = list(self.milestones) == sorted(self.milestones)
        self.require(
            "milestones",
            rising and all(0 < point < 1 for point in self.milestones),
            "rising fractions of the run, between 0 and 1",
        )
        self._check_final_epochs()
        self.require("drop_path", 0 <= self.drop_path < 1, "a rate from 0 to below 1")
        low, high = self.scale_jitter or (1.0, 1.0)
        self.require("scale_jitter", 0.1 <= low <= high <= 4.0, "two factors with 0.1 <= low <= high <= 4")
        self.require("sizes", all(0.1 <= one <= 4.0 for one in self.sizes), "factors from 0.1 to 4")
        self.require("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1, or null")

    @property
    def precision(self) -> Amp:
        """``amp`` of a training that has begun.

        Raises:
            ValueError: it is ``auto`` still; see :func:`trainers.precision.settled`.
        """
        if self.amp == "auto":
            raise ValueError("train.amp is auto still, and no machine was asked")
        return self.amp

    @property
    def micro_batch(self) -> int:
        """Images that are in memory at a time, those of all ranks together."""
        return self.batch_size // self.accumulate

    @property
    def area(self) -> float:
        """Pixels of an image in training over those stored: the mean over ``sizes``, rounding to strides aside."""
        return sum(one**2 for one in self.sizes) / len(self.sizes) if self.sizes else 1.0

    def _check_final_epochs(self) -> None:
        if self.schedule != "final_epochs":
            return
        if self.epochs is None:
            raise FieldError("schedule", self.schedule, "counts epochs; give epochs in place of steps")
        falling = list(self.final_epochs) == sorted(self.final_epochs, reverse=True)
        self.require(
            "final_epochs",
            bool(self.final_epochs)
            and falling
            and 0 < self.final_epochs[-1] <= self.final_epochs[0] < self.epochs,
            f"one or more falling numbers of epochs, above 0 and below epochs, {self.epochs:g}",
        )
