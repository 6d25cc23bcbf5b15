"""The backbone as a plug-in of MMDetection and of Detectron2: a file of its class, and a config that names it.

Each file is that of the bundle (``backbone.py``, only torch) with a class below that the other's registry takes.
Detector, data and schedule are the other library's business; the config says what of them depends on the backbone.
"""

from collections.abc import Sequence
from pathlib import Path

from nas.export.alone import alone
from nas.export.backbone_files import WEIGHTS, stored_weights
from nas.export.parity import Check, kept_if_equal
from nas.export.source import backbone_source
from nas.export.subject import Subject
from nas.export.work import Work
from trainers.learner import MEAN, STD

_NAME = "VertebraBackbone"
# Maps of a pyramid, and of those the ones from which regions are pooled (Lin et al. 2017, FPN, section 4).
_MAPS = 5
_POOLED = 4
# Categories where none were learned: COCO's.
_COCO = 80

_MMDET = '''

# --- for MMDetection -----------------------------------------------------------------------------------------

from pathlib import Path as _Path

from mmdet.registry import MODELS as _MODELS

_HERE = _Path(__file__).resolve().parent


@_MODELS.register_module()
class VertebraBackbone(torch.nn.Module):
    """This network as MMDetection takes it: normalised images -> a tuple of maps, fine to coarse.

    Args:
        levels: which of its maps are returned.
        weights: a .safetensors file of its weights, relative to this file; None for random ones.
        norm_eval: its batch normalisation keeps its statistics in training.
        init_cfg: as every module there has it; None, for the weights come from ``weights``.
    """

    def __init__(self, levels={levels}, weights={weights}, norm_eval=False, init_cfg=None):
        super().__init__()
        if init_cfg is not None:
            raise ValueError("init_cfg: weights of this network are given by `weights`, a .safetensors file")
        self.body = build() if weights is None else load(str(_HERE / weights))
        self.out_levels = tuple(levels)
        unknown = [name for name in self.out_levels if name not in self.body.levels]
        if unknown:
            raise ValueError(f"levels: found {{unknown}}; this network has {{sorted(self.body.levels)}}")
        self.norm_eval = norm_eval
        self.train()

    def init_weights(self):
        """They are there already."""

    def train(self, mode=True):
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images):
        maps = self.body(images)
        return tuple(maps[name] for name in self.out_levels)
'''

_MMDET_CONFIG = """# A detector of MMDetection 3 around this backbone. Start it where this file lies:
#     python MMDETECTION/tools/train.py config.py
# _base_ is MMDetection's; only what depends on the backbone is said here. Data and schedule are yours.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"
custom_imports = dict(imports=["vertebra_mmdet"], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(
        mean={mean},
        std={std},
        bgr_to_rgb=True,
        pad_size_divisor={step},
    ),
    backbone=dict(
        _delete_=True,
        type="{name}",
        levels={levels},
        weights={weights},
    ),
    neck=dict(_delete_=True, type="FPN", in_channels={channels}, out_channels=256, num_outs={outs}),
    rpn_head=dict(anchor_generator=dict(strides={strides})),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides={pooled}),
        bbox_head=dict(num_classes={classes}),
    ),
)
"""

_DETECTRON2 = '''

# --- for Detectron2 ------------------------------------------------------------------------------------------

from pathlib import Path as _Path

from detectron2.modeling import BACKBONE_REGISTRY as _BACKBONES
from detectron2.modeling import Backbone as _Backbone
from detectron2.modeling import ShapeSpec as _ShapeSpec

_HERE = _Path(__file__).resolve().parent


class VertebraBackbone(_Backbone):
    """This network as Detectron2 takes it: normalised images -> level -> map.

    Args:
        levels: which of its maps are returned.
        weights: a .safetensors file of its weights, relative to this file; None for random ones.
    """

    def __init__(self, levels={levels}, weights={weights}):
        super().__init__()
        self.body = build() if weights is None else load(str(_HERE / weights))
        unknown = [name for name in levels if name not in self.body.levels]
        if unknown:
            raise ValueError(f"levels: found {{unknown}}; this network has {{sorted(self.body.levels)}}")
        self._out_features = list(levels)
        self._out_feature_channels = {{name: self.body.levels[name][0] for name in levels}}
        self._out_feature_strides = {{name: self.body.levels[name][1] for name in levels}}
        self.train()

    @property
    def size_divisibility(self):
        return {step}

    def output_shape(self):
        return {{
            name: _ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }}

    def forward(self, images):
        maps = self.body(images)
        return {{name: maps[name] for name in self._out_features}}


@_BACKBONES.register()
def build_vertebra_backbone(cfg, input_shape):
    """For ``MODEL.BACKBONE.NAME``."""
    return VertebraBackbone()


@_BACKBONES.register()
def build_vertebra_fpn_backbone(cfg, input_shape):
    """The same under a feature pyramid, for ``MODEL.BACKBONE.NAME``; its further level is for proposals."""
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

    # Detectron2's takes P5, whatever the coarsest map is.
    top = LastLevelMaxPool()
    top.in_feature = "{last}"
    return FPN(
        bottom_up=build_vertebra_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
'''

_DETECTRON2_CONFIG = """# A Faster R-CNN of Detectron2 around this backbone. Import vertebra_detectron2 first, then
#     cfg = get_cfg(); cfg.merge_from_file("config.yaml")
# Only what depends on the backbone is said here. Data and schedule are yours.
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  # Those of the backbone come from weights.safetensors and not from a checkpoint.
  WEIGHTS: ""
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
  BACKBONE:
    NAME: {builder}
    FREEZE_AT: 0
  FPN:
    IN_FEATURES: {levels}
  RPN:
    IN_FEATURES: {maps}
  ANCHOR_GENERATOR:
    SIZES: {sizes}
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: {pooled}
    NUM_CLASSES: {classes}
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    NUM_FC: 2
    POOLER_RESOLUTION: 7
INPUT:
  FORMAT: RGB
"""

# A registry that keeps what it is given, in the place of MMDetection's and Detectron2's.
_STAND_IN = """
import types
class Registry(dict):
    def register_module(self):
        return self.register()
    def register(self):
        def keep(one):
            self[one.__name__] = one
            return one
        return keep
class ShapeSpec(types.SimpleNamespace):
    pass
registry = Registry()
for name, members in {{
    "mmdet": {{}},
    "mmdet.registry": {{"MODELS": registry}},
    "detectron2": {{}},
    "detectron2.modeling": {{"BACKBONE_REGISTRY": registry, "Backbone": torch.nn.Module, "ShapeSpec": ShapeSpec}},
}}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)
sys.path.insert(0, sys.argv[1])
allowed.add("{module}")
import {module}
network = {module}.VertebraBackbone(levels={levels}, weights=sys.argv[2]).eval()
def run(images):
    maps = network(images)
    return maps.values() if isinstance(maps, dict) else maps
"""


def mmdet_plugin(work: Work) -> None:
    """``mmdet/vertebra_mmdet.py``, the registered backbone, and ``config.py``."""
    one, levels = work.subject, _levels(work.subject)
    strides = [one.levels[name][1] for name in levels]
    every = [*strides, 2 * strides[-1]] if len(strides) < _MAPS else strides
    config = _MMDET_CONFIG.format(
        step=one.step,
        mean=_of_bytes(MEAN),
        std=_of_bytes(STD),
        name=_NAME,
        levels=levels,
        weights=_weights(work),
        channels=[one.levels[name][0] for name in levels],
        outs=len(every),
        strides=every,
        pooled=strides[:_POOLED],
        classes=_classes(one),
    )
    _write(work, "mmdet", _MMDET.format(levels=levels, weights=_weights(work)), "config.py", config)


def detectron2_plugin(work: Work) -> None:
    """``detectron2/vertebra_detectron2.py``, the registered backbone, and ``config.yaml``."""
    one, levels = work.subject, _levels(work.subject)
    strides = [one.levels[name][1] for name in levels]
    widths = {one.levels[name][0] for name in levels}
    # A network that is a pyramid itself (SpineNet) goes without another one.
    whole = len(widths) == 1 and len(levels) == _MAPS
    every = strides if whole else [*strides, 2 * strides[-1]]
    maps = list(levels) if whole else [f"p{stride.bit_length() - 1}" for stride in every]
    config = _DETECTRON2_CONFIG.format(
        mean=_of_bytes(MEAN),
        std=_of_bytes(STD),
        builder=f"build_vertebra_{'' if whole else 'fpn_'}backbone",
        levels=_yaml(levels),
        maps=_yaml(maps),
        sizes=[[8 * stride] for stride in every],
        pooled=_yaml(maps[: min(len(levels), _POOLED)]),
        classes=_classes(one),
    )
    last = f"p{strides[-1].bit_length() - 1}"
    tail = _DETECTRON2.format(levels=levels, weights=_weights(work), step=one.step, last=last)
    _write(work, "detectron2", tail, "config.yaml", config)


def _write(work: Work, name: str, tail: str, config_name: str, config: str) -> None:
    one, module = work.subject, f"vertebra_{name}"
    folder = work.folder / name
    folder.mkdir(exist_ok=True)
    settings = folder / config_name
    with kept_if_equal(folder / f"{module}.py") as path, kept_if_equal(settings):
        path.write_text(backbone_source(one.architecture) + tail, encoding="utf-8")
        settings.write_text(config, encoding="utf-8")
        checks = _checks(work, path, name)
    work.add(
        path,
        name=name,
        holds="backbone",
        accepts=f"float32 (N, 3, H, W), any N, H and W, normalised as {config_name} says",
        checks=checks,
    )
    work.add(settings, name=name, holds="its config", accepts=f"{module}.py", checks=())


def _checks(work: Work, path: Path, name: str) -> tuple[Check, ...]:
    levels = tuple(work.subject.levels)
    code = _STAND_IN.format(module=path.stem, levels=levels)
    with (
        stored_weights(work) as weights,
        alone(code, [path.parent, weights], what=f"{name}: {path.name}") as run,
    ):
        return work.compare_backbone(run, name=name, of=path.name, one_size=False)


def _levels(one: Subject) -> tuple[str, ...]:
    """Those that enter a pyramid."""
    return tuple(one.levels) if one.detector is None else one.detector.backbone.levels


def _weights(work: Work) -> str:
    """As Python says where they lie, relative to a plug-in's file."""
    return repr(f"../{WEIGHTS}") if (work.folder / WEIGHTS).exists() else "None"


def _classes(one: Subject) -> int:
    return len(one.categories) or _COCO


def _of_bytes(values: Sequence[float]) -> list[float]:
    return [round(255 * value, 4) for value in values]


def _yaml(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"
