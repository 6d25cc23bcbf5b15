"""Classifiers around backbones: their scores, loss and accuracy, and that the one loop trains them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from search_spaces.architecture import Genes
from search_spaces.catalog import ZOO, family_of
from search_spaces.errors import ConfigError
from trainers.classifier import Accuracy, Classifier, accuracy, build_classifier
from trainers.data.image_folder import ImageFolder
from trainers.loop import Trainer
from trainers.recipes import ImageFolderRecipe, TrainRecipe

CPU = torch.device("cpu")


class Colours(ImageFolder):
    """Plain images whose colour is their class; no file is read."""

    def pixels(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        noise = torch.randint(0, 60, (3, 32, 32), generator=generator, dtype=torch.uint8)
        noise[self.labels[index] % 3] += 150
        return noise


def colours(count: int, classes: int = 3) -> Colours:
    return Colours(
        recipe=ImageFolderRecipe(image_size=32, crop_share=1.0),
        files=tuple(Path(f"{index}.png") for index in range(count)),
        labels=tuple(index % classes for index in range(count)),
        classes=tuple("abcdefghij"[:classes]),
        digest=f"colours {count} {classes}",
    )


def small(name: str = "resnet18", classes: int = 3, seed: int = 0) -> Classifier:
    named = ZOO[name]
    narrow = {"widths": (8, 8, 8, 8), "stem": "small"} if name == "resnet18" else {}
    if name == "spinenet49s":
        narrow = {"filter_size_scale": 0.25, "endpoint": 8}
    network = replace(named, settings=Genes({**named.settings, **narrow}))
    backbone = family_of(network).build(network, seed=seed)
    return build_classifier(network.family, backbone, classes, label_smoothing=0.1, seed=seed)


def test_scores_are_those_of_torchvisions_classifier() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = resnet18(weights=None, num_classes=7).eval()
    backbone = family_of(ZOO["resnet18"]).build(ZOO["resnet18"], seed=1)
    ours = build_classifier("crnas.resnet", backbone, 7, label_smoothing=0.0, seed=1).eval()
    state = theirs.state_dict()
    head = {f"linear.{name}": state.pop(f"fc.{name}") for name in ("weight", "bias")}
    ours.backbone.load_state_dict({f"body.{name}": one for name, one in state.items()} | head)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(ours.normalise(images)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "spinenet49s"])
def test_gradient_reaches_every_weight_and_seeds_decide(name: str) -> None:
    classifier = small(name, seed=3).train()
    images = torch.randint(
        0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    losses = classifier.losses(images, [0, 1, 2, 0])
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert [name for name, one in classifier.named_parameters() if one.grad is None] == []
    again, other = small(name, seed=3), small(name, seed=4)
    weights = classifier.backbone.linear.weight
    assert torch.equal(weights, again.backbone.linear.weight)
    assert not torch.equal(weights, other.backbone.linear.weight)
    assert all(name.startswith(("backbone.body.", "backbone.linear.")) for name in classifier.state_dict())


class Fixed(nn.Module):
    """Scores that do not depend on the image."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.scores = torch.tensor(scores)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores.expand(len(x), -1)


def test_the_loss_is_smoothed_cross_entropy_by_hand() -> None:
    scores = [2.0, 0.0, -1.0]
    classifier = Classifier(Fixed(scores), label_smoothing=0.3)
    logs = torch.tensor(scores).log_softmax(0)
    # 0.3 is spread over the three classes, so the label itself keeps 0.7 + 0.1.
    wanted = -(0.8 * logs[1] + 0.1 * logs[0] + 0.1 * logs[2])
    found = classifier.losses(torch.zeros(2, 3, 32, 32), [1, 1])
    torch.testing.assert_close(found["classification"], wanted)


def test_accuracy_by_hand() -> None:
    data = colours(14, classes=7)  # every label twice
    classifier = Classifier(Fixed([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), label_smoothing=0.1).train()
    found = accuracy(classifier, data, batch_size=4, device=CPU)
    loss = -torch.arange(7.0).log_softmax(0).mean()
    assert classifier.training
    assert found == Accuracy(top1=2 / 14, top5=10 / 14, loss=pytest.approx(float(loss), rel=1e-6))
    few = Classifier(Fixed([1.0, 0.0, 0.5]), label_smoothing=0.0)
    assert accuracy(few, colours(6), batch_size=6, device=CPU).top5 == 1.0


def trained(
    directory: Path | None = None, stop_at: int | None = None, **changes: object
) -> Trainer[Classifier]:
    recipe = replace(
        TrainRecipe(steps=48, batch_size=6, lr=0.01, warmup_steps=2, checkpoint_every=5),
        **changes,  # type: ignore[arg-type]
    )
    trainer = Trainer(
        detector=small(), data=colours(18), recipe=recipe, seed=1, directory=directory, device=CPU
    )
    trainer.run(stop_at)
    return trainer


def test_the_loop_trains_a_classifier_and_resumes_it_to_the_bit(tmp_path: Path) -> None:
    whole = trained()
    assert accuracy(whole.detector, colours(12), batch_size=6, device=CPU).top1 == 1.0
    trained(tmp_path, stop_at=17)
    resumed = trained(tmp_path)
    states = [one.detector.state_dict() for one in (whole, resumed)]
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


def test_half_precision_learns_too() -> None:
    assert accuracy(trained(amp="bf16").detector, colours(12), batch_size=6, device=CPU).top1 > 0.9


def test_augmentations_for_detectors_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.scale_jitter: found \[0\.8, 1\.2\], which is for detectors"
    ):
        trained(scale_jitter=(0.8, 1.2))
    with pytest.raises(ConfigError, match=r"train\.sizes: found \[0\.5, 1\.0\], which is for detectors"):
        trained(sizes=(0.5, 1.0))


def test_one_small_image_at_a_time_is_refused() -> None:
    words = r"train\.batch_size: one image of 32x32 px at a time leaves one value a channel"
    with pytest.raises(ConfigError, match=words):
        trained(batch_size=1)


def test_averaged_weights_and_micro_batches_of_a_classifier(tmp_path: Path) -> None:
    settings = {"ema": 0.9, "accumulate": 2}
    whole = trained(**settings)
    trained(tmp_path, stop_at=17, **settings)
    states = [one.detector.state_dict() for one in (whole, trained(tmp_path, **settings), trained())]
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())
    assert not torch.equal(states[0]["backbone.linear.weight"], states[2]["backbone.linear.weight"])


def test_frozen_norms_stay(tmp_path: Path) -> None:
    before = small().backbone.body.state_dict()
    after = trained(frozen_bn=True, steps=3).detector.backbone.body.state_dict()
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert functional.mse_loss(before["bn1.weight"], after["bn1.weight"]) == 0
