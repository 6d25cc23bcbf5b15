"""The whole detector as a graph: for onnxruntime with everything inside, for torch up to non-maximum suppression."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from nas.export import pt2_loader
from nas.export.alone import alone
from nas.export.capture import Captured, capture, captured
from nas.export.detections import compare_ap, compare_detections
from nas.export.detector_graph import OUTPUTS, Candidates, OneStage
from nas.export.onnx_file import OnnxModel, write_onnx
from nas.export.parity import Check, kept_if_equal, worst
from nas.export.pooling import pool, pool_in_onnx
from nas.export.suppression import sort_in_onnx, suppress, suppress_in_onnx
from nas.export.torch_export import write_pt2
from nas.export.two_stage_graph import TwoStage
from nas.export.work import Work
from trainers.detectors.cascade_rcnn import CascadeRCNN
from trainers.detectors.dense import DenseDetector
from trainers.detectors.detector import Detections, Detector
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.detectors.mask_rcnn import MaskRCNN
from trainers.evaluate import coco_results

LOADER = "detector.py"
_BYTES = "RGB bytes, {fit}, padded with zeros at right and bottom"

_RUN_LOADER = """
sys.path.insert(0, sys.argv[1])
allowed.add("detector")
import detector
loaded = detector.load(sys.argv[2])
def run(images):
    return [one[name] for one in loaded(images) for name in ("boxes", "scores", "labels")]
"""


def onnx_detector(work: Work) -> None:
    """``detector.onnx``: from bytes to boxes, non-maximum suppression inside."""
    detector = work.subject.detector
    if detector is None:
        work.left_out.append("onnx: no detector was trained, so there is the backbone alone")
        return
    graph = _whole(detector, work.subject.image_size)
    if graph is None:
        work.left_out.append(f"onnx: {type(detector).__name__} is left out, only its backbone is there")
        return
    outputs = (*OUTPUTS, "masks") if isinstance(detector, MaskRCNN) else OUTPUTS
    whole = _captured(graph, work, outputs)
    accepts = f"{whole.accepts}; {_BYTES.format(fit=work.subject.fit)}"
    about = {
        "architecture": work.subject.architecture.digest,
        "input": accepts,
        "categories": json.dumps(list(work.subject.categories)),
    }
    with kept_if_equal(work.folder / "detector.onnx") as path:
        write_onnx(
            whole,
            path,
            about=about,
            translations={
                torch.ops.aten.sort.stable: sort_in_onnx,
                suppress._opoverload: suppress_in_onnx,
                pool._opoverload: pool_in_onnx,
            },
        )
        model = OnnxModel(path)
        checks = _checks(
            work,
            lambda images: _of_images(model(images), len(images)),
            name="onnx",
            of=path.name,
            resized=whole.size is None,
        )
    work.add(path, name="onnx", holds="detector", accepts=accepts, checks=checks)


def torch_export_detector(work: Work) -> None:
    """``detector.pt2`` and ``detector.py``, which loads it and adds non-maximum suppression."""
    detector = work.subject.detector
    if detector is None:
        work.left_out.append("torch_export: no detector was trained, so there is the backbone alone")
        return
    if not isinstance(detector, DenseDetector):
        work.left_out.append(
            f"torch_export: {type(detector).__name__} is left out, for what comes after its proposals depends on "
            "what is found; its backbone is there, and the whole detector is in the ONNX file where that was written"
        )
        return
    whole = _captured(Candidates(detector), work, ("boxes", "scores", "labels"))
    accepts = f"{whole.accepts}; {_BYTES.format(fit=work.subject.fit)}"
    settings = {
        "size": list(work.subject.image_size),
        "categories": list(work.subject.categories),
        "overlap": detector.nms,
        "threshold": detector.score_threshold,
        "most": detector.max_detections,
        "input": accepts,
        "architecture": work.subject.architecture.digest,
    }
    loader = work.folder / LOADER
    with kept_if_equal(work.folder / "detector.pt2") as path, kept_if_equal(loader):
        write_pt2(whole, path, {pt2_loader.SETTINGS: json.dumps(settings)})
        loader.write_text(Path(pt2_loader.__file__).read_text(encoding="utf-8"), encoding="utf-8")
        with alone(_RUN_LOADER, [work.folder, path], what=f"torch_export: {path.name}") as run:
            checks = _checks(
                work,
                lambda images: _of_loader(run(images)),
                name="torch_export",
                of=path.name,
                resized=whole.size is None,
            )
    work.add(path, name="torch_export", holds="detector", accepts=accepts, checks=checks)
    work.add(loader, name="torch_export", holds="its loader", accepts="detector.pt2", checks=())


def _whole(detector: Detector, size: tuple[int, int]) -> nn.Module | None:
    """The module of which a graph is made; None for a detector that has none."""
    if isinstance(detector, DenseDetector):
        return OneStage(detector)
    # Not what is derived from them: it finds in other ways.
    if type(detector) in (FasterRCNN, MaskRCNN, CascadeRCNN):
        return TwoStage(detector, size)  # type: ignore[arg-type]
    return None


def _captured(module: nn.Module, work: Work, outputs: tuple[str, ...]) -> Captured:
    """For images of any size that gives the coarsest map two cells, where those of training are such."""
    one = work.subject
    assert one.detector is not None
    if min(one.image_size) >= one.least_side:
        least = one.least_side // one.step
        return captured(module.eval(), outputs, one.image_size, step=one.step, least=least, dtype=torch.uint8)
    example = torch.zeros(2, 3, *one.image_size, dtype=torch.uint8)
    program = capture(module.eval(), example, {0: Dim("batch", min=1)})
    return Captured(program=program, outputs=outputs, size=one.image_size, step=one.step, dtype="uint8")


def _of_images(found: dict[str, Tensor], count: int) -> list[Detections]:
    """What an ONNX file found in a batch, image by image."""
    masks = found.get("masks")
    result = []
    for index in range(count):
        here = found["image"] == index
        one = Detections(
            boxes=found["boxes"][here], scores=found["scores"][here], labels=found["labels"][here]
        )
        if masks is not None:
            one["masks"] = masks[here]
        result.append(one)
    return result


def _of_loader(flat: Sequence[Tensor]) -> list[Detections]:
    """What a loader found in a batch, image by image."""
    return [
        Detections(boxes=flat[index], scores=flat[index + 1], labels=flat[index + 2])
        for index in range(0, len(flat), 3)
    ]


def _checks(
    work: Work, run: Callable[[Tensor], Sequence[Detections]], *, name: str, of: str, resized: bool
) -> tuple[Check, ...]:
    """Compare what is found in ``work.parts(resized)``, part by part; AP is of the images as they are.

    Of a part nothing is kept but how far it was off and, for AP, its objects in COCO's form, masks as run lengths.
    """
    threshold, most = _ends(work.subject.detector)
    data = work.subject.data
    checks, wanted, found = [], [], []
    first = 0
    for part, one in work.detections(resized):
        other = run(part)
        checks.append(
            compare_detections(one, other, threshold=threshold, most=most, name=name, of=of, start=first)
        )
        # Those at another size come after all images.
        if data is not None and first < len(data):
            here = data.subset(range(first, first + len(part)))
            wanted += coco_results(here, one)
            found += coco_results(here, other)
        first += len(part)
    if data is None:
        return worst(iter(checks))
    return (*worst(iter(checks)), *compare_ap(data, wanted, found, name=name, of=of))


def _ends(detector: Any) -> tuple[float, int]:
    """Score below which nothing is found, and objects in an image at most."""
    if isinstance(detector, DenseDetector):
        return detector.score_threshold, detector.max_detections
    heads = detector.roi_heads.stages[-1] if isinstance(detector, CascadeRCNN) else detector.roi_heads
    return heads.score_thresh, heads.detections_per_img
