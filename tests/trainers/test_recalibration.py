"""Statistics of BN computed anew: those of the batches inside, the old ones before and after."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.recalibration import Recalibration, recalibrated
from trainers.recipes import DetectorRecipe


def norms(detector: Detector) -> list[nn.BatchNorm2d]:
    return [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]


def statistics(detector: Detector) -> list[Tensor]:
    return [buffer.clone() for norm in norms(detector) for buffer in norm.buffers()]


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_inside_are_the_means_over_the_batches_in_any_order(
    name: str, tiny_backbone: Callable[..., nn.Module], squares: Callable[..., DetectionSet]
) -> None:
    recipe = DetectorRecipe(name=name, fpn_channels=16, levels=("c3", "c4"), head_convs=1)  # type: ignore[arg-type]
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0)
    outside = len(norms(detector)) - len(
        [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    )
    assert (outside > 0) == (name == "retinanet"), "one has BN in its head"
    batches = list(squares(6, 64).images.split(2))
    before, momentum = statistics(detector), norms(detector)[0].momentum
    with recalibrated(detector, batches):
        found = statistics(detector)
        assert not any(module.training for module in detector.modules())
        first = norms(detector)[0]
        with torch.no_grad():
            stem = [detector.backbone.body.stem[0](detector.normalise(batch)) for batch in batches]
        expected = torch.stack([maps.mean((0, 2, 3)) for maps in stem]).mean(0)
        torch.testing.assert_close(first.running_mean, expected, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(one, other) for one, other in zip(statistics(detector), before, strict=True))
    assert norms(detector)[0].momentum == momentum
    with recalibrated(detector, batches[::-1]):
        for one, other in zip(statistics(detector), found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_without_batches_the_statistics_of_the_training_stay(
    tiny_backbone: Callable[..., nn.Module],
) -> None:
    recipe = DetectorRecipe(fpn_channels=16, levels=("c3", "c4"), head_convs=0)
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0)
    for norm in norms(detector):
        nn.init.constant_(norm.running_mean, 0.25)
    with recalibrated(detector, []):
        assert all(float(norm.running_mean[0]) == 0.25 for norm in norms(detector))


def test_what_goes_wrong_inside_leaves_nothing_behind(tiny_backbone: Callable[..., nn.Module]) -> None:
    recipe = DetectorRecipe(fpn_channels=16, levels=("c3", "c4"), head_convs=0)
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0)
    before = statistics(detector)
    with pytest.raises(KeyboardInterrupt), recalibrated(detector, [torch.rand(2, 3, 64, 64)]):
        raise KeyboardInterrupt
    assert all(torch.equal(one, other) for one, other in zip(statistics(detector), before, strict=True))


def test_what_a_detector_consists_of_is_looked_at_once(
    tiny_backbone: Callable[..., nn.Module], squares: Callable[..., DetectionSet]
) -> None:
    """Whoever comes again finds the detector as it is then: its weights and statistics, and training mode too."""
    recipe = DetectorRecipe(name="fcos", fpn_channels=16, levels=("c3", "c4"), head_convs=1)
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0)
    recalibration, batches = Recalibration(detector), list(squares(6, 64).images.split(2))
    with recalibration.over(batches):
        first = statistics(detector)
    detector.train()
    with torch.no_grad():
        for one in (*detector.parameters(), *(norm.running_mean for norm in norms(detector))):
            assert one is not None
            one.add_(0.125)
    before = statistics(detector)
    with recalibration.over(batches):
        again = statistics(detector)
        assert not any(module.training for module in detector.modules())
    with recalibrated(detector, batches):
        assert all(torch.equal(one, other) for one, other in zip(statistics(detector), again, strict=True))
    assert not torch.equal(first[0], again[0])
    assert all(torch.equal(one, other) for one, other in zip(statistics(detector), before, strict=True))
