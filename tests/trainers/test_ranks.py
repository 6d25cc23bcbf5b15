"""Two ranks with half of every batch each are one rank with the whole of it: losses, statistics, draws, paths."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import ConfigError
from trainers.batches import Batches
from trainers.data.detection_set import DetectionSet
from trainers.detectors.norm import BatchNorm
from trainers.ranks import ALONE, STORE, Ranks, rank_device, require_share, started_by_torchrun
from trainers.recipes import TrainRecipe
from trainers.synced_norm import SyncedBatchNorm

T = TypeVar("T")
HERE = Path(__file__).parent
SGD = {"steps": 12, "batch_size": 6, "lr": 0.01, "warmup_steps": 2, "optimizer": "sgd"}
JITTER = {**SGD, "batch_size": 2, "scale_jitter": (0.1, 1.9)}
TWO_STAGES = {"box_head": 32, "roi_batch": 32, "fpn_channels": 16, "candidates": 60}


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    fcos = {"name": "fcos", "fpn_channels": 16}
    normed = {"name": "faster_rcnn", "rcnn_norm": True, "box_convs": 1, **TWO_STAGES}
    path = {"name": "fcos", "fpn_channels": 8, "levels": ["c3", "c4", "c5"]}
    return {
        "fcos": {"detector": fcos, "train": SGD, "directory": str(folder / "fcos")},
        "fcos, an image a rank": {"detector": fcos, "train": JITTER},
        "fcos, branches dropped": {"detector": fcos, "train": {**SGD, "drop_path": 0.5}, "body": "dropping"},
        "retinanet": {"detector": {**fcos, "name": "retinanet", "extra_levels": 2}, "train": SGD},
        "faster_rcnn": {"detector": normed, "train": {**SGD, "steps": 6}},
        "mask_rcnn": {"detector": {"name": "mask_rcnn", **TWO_STAGES}, "train": {**SGD, "steps": 4}},
        "cascade_rcnn": {"detector": {"name": "cascade_rcnn", **TWO_STAGES}, "train": {**SGD, "steps": 4}},
        "everything": {
            "detector": {**fcos, "pyramid": "pafpn"},
            "train": {**SGD, "batch_size": 8, "accumulate": 2, "ema": 0.9, "sizes": (0.5, 1.5)},
            "directory": str(folder / "everything"),
        },
        "supernet": {
            "detector": path,
            "train": {**SGD, "lr": 0.003, "weight_decay": 0.1, "ema": 0.5},
            "body": "supernet",
            "directory": str(folder / "supernet"),
        },
    }


NAMES = list(jobs(Path()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What came of each job: by rank 0 and 1 together, and alone."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [str(HERE / "two_ranks.py"), json.dumps(jobs(folder))]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",
        STORE: str(folder / "store"),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, *words, str(folder / f"{rank}.pt")],
            env={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    assert [one.wait(timeout=300) for one in ranks] == [0, 0]
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    files = sorted(path.name for path in (folder / "fcos/2").iterdir())
    assert files == ["checkpoint.pt", "metrics.jsonl"]
    return {name: [first["both"][name], second["both"][name], first["alone"][name]] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_are_one_with_the_same_batch(
    trained: Mapping[str, list[dict[str, Any]]], name: str
) -> None:
    first, second, alone = trained[name]
    assert len(alone["losses"]) == jobs(Path())[name]["train"]["steps"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for terms, expected in zip(first["terms"], alone["terms"], strict=True):
        assert terms == pytest.approx(expected, rel=1e-4, abs=1e-6)
    moved = set()
    for key, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][key], value, rtol=1e-3, atol=1e-4, msg=key)
        assert torch.equal(first["weights"][key], second["weights"][key]), key
        moved |= {key} if "running_mean" in key and value.abs().max() > 0.01 else set()
    assert first["losses"] == second["losses"] and first["terms"] == second["terms"]
    assert moved, "statistics that have left their beginning, else their equality says little"
    assert first["kinds"] == alone["kinds"], "no trace of other ranks is left in the network"


def test_a_path_is_the_same_on_all_ranks_and_weights_off_it_get_no_gradient(
    trained: Mapping[str, list[dict[str, Any]]],
) -> None:
    first, second, alone = trained["supernet"]
    assert first["still"] == second["still"] == alone["still"]
    assert all(first["still"]) and len({tuple(names) for names in first["still"]}) > 6


def test_the_first_rank_writes_and_its_evaluation_counts(
    trained: Mapping[str, list[dict[str, Any]]],
) -> None:
    first, second, _ = trained["fcos"]
    assert first["said"] == ["9: 0", "12: 0"] == second["said"][-2:]


class Neighbours:
    """Ranks that are threads of this process: what one says waits for the others."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=60)
        self.said: list[Any] = [None] * count

    def exchange(self, rank: int, thing: Any) -> list[Any]:
        self.said[rank] = thing
        self.barrier.wait()
        found = list(self.said)
        self.barrier.wait()
        return found

    def run(self, work: Callable[[Ranks], T]) -> list[T]:
        """Work of all ranks at once."""
        ranks = [Thread(rank=rank, count=self.count, others=self) for rank in range(self.count)]
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(work, ranks))


@dataclass(frozen=True, kw_only=True)
class Thread(Ranks):
    others: Neighbours = field(default_factory=lambda: Neighbours(1))

    def gathered(self, values: Tensor) -> Tensor:
        return torch.stack(self.others.exchange(self.rank, values))

    def mean(self, values: Tensor) -> Tensor:
        return self.gathered(values).sum(0) / self.count


def normalised(norm: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Output, gradient of x for a loss that tells its values apart, and gradients of the weights."""
    x = x.clone().requires_grad_()
    out = norm(x)
    weights = torch.arange(1.0, 1 + x.shape[1]).view(1, -1, *[1] * (x.dim() - 2)) * x.detach().cos()
    (weights * out**2).sum().backward()
    assert x.grad is not None
    return (out.detach(), x.grad, *(one.grad for one in norm.parameters()))


@pytest.mark.parametrize("parts", [(2, 1, 3), (6, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dims", [4, 2])
def test_normalisation_sees_the_values_of_all_ranks(
    parts: tuple[int, ...], momentum: float | None, dims: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    x = 5 + 2 * torch.randn((sum(parts), 4, *[3, 5][: dims - 2]), generator=generator)
    plain = BatchNorm(4, momentum=momentum)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
        plain.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 3.0]))
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    expected = normalised(plain, x)
    slices = x.split(list(parts))

    def work(ranks: Ranks) -> tuple[SyncedBatchNorm, tuple[Tensor, ...]]:
        norm = SyncedBatchNorm(4, momentum=momentum)
        norm.ranks = ranks
        norm.load_state_dict(state)
        return norm, normalised(norm, slices[ranks.rank])

    found = Neighbours(3).run(work)
    for norm, _ in found:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-5, atol=1e-6)
            assert torch.equal(norm.state_dict()[name], found[0][0].state_dict()[name])
        assert torch.equal(norm.eval()(x), found[0][0].eval()(x))
    out, gradient, *of_weights = zip(*(one for _, one in found), strict=True)
    torch.testing.assert_close(torch.cat(out), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(gradient), expected[1], rtol=1e-3, atol=1e-4)
    for own, whole in zip(of_weights, expected[2:], strict=True):
        torch.testing.assert_close(torch.stack(own).sum(0), whole, rtol=1e-4, atol=1e-4)


def test_where_all_ranks_have_less_than_two_values_the_running_statistics_are_taken() -> None:
    def work(ranks: Ranks) -> Tensor:
        norm = SyncedBatchNorm(2)
        norm.ranks = ranks
        out: Tensor = norm(torch.full((1 - ranks.rank, 2, 1, 1), 3.0))
        assert int(norm.num_batches_tracked) == 0 and norm.running_mean.tolist() == [0.0, 0.0]
        return out

    first, second = Neighbours(2).run(work)
    assert first.flatten().tolist() == pytest.approx([3.0, 3.0], rel=1e-4) and second.shape == (0, 2, 1, 1)


def test_gradients_are_averaged_and_one_that_nobody_has_stays_none() -> None:
    def work(ranks: Ranks) -> list[Any]:
        parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(3)] + [
            nn.Parameter(torch.zeros(1, dtype=torch.float64))
        ]
        parameters[0].grad = torch.arange(6.0).view(2, 3) * (1 + ranks.rank)
        if ranks.rank == 1:
            parameters[1].grad = torch.ones(2, 3)
        parameters[3].grad = torch.tensor([1e-12 * ranks.rank], dtype=torch.float64)
        ranks.average_gradients(parameters)
        return [None if one.grad is None else one.grad.tolist() for one in parameters]

    first, second = Neighbours(2).run(work)
    assert first == second
    assert first[0] == [[0.0, 1.5, 3.0], [4.5, 6.0, 7.5]] and first[1] == [[0.5] * 3] * 2
    assert first[2] is None and first[3] == [5e-13]


def test_a_rank_draws_for_the_whole_batch_and_takes_its_part(squares: Callable[..., DetectionSet]) -> None:
    data, cpu = squares(5, 64), torch.device("cpu")
    for jitter in (None, (0.1, 1.9)):
        recipe = TrainRecipe(steps=1, batch_size=6, scale_jitter=jitter)
        whole, targets = Batches(data, recipe, 3).at(4, cpu)
        parts = [Batches(data, recipe, 3).at(4, cpu, Ranks(rank=rank, count=3)) for rank in range(3)]
        assert torch.equal(torch.cat([images for images, _ in parts]), whole)
        assert not torch.equal(whole, data.images[Batches(data, recipe, 3).indices(4)]), "it is augmented"
        found = [target for _, some in parts for target in some]
        for one, other in zip(found, targets, strict=True):
            assert torch.equal(one["boxes"], other["boxes"]) and one["image_id"] == other["image_id"]


def test_parts_are_all_of_it_in_order() -> None:
    for size in (0, 1, 5, 12):
        cuts = [Ranks(rank=rank, count=4).part(size) for rank in range(4)]
        assert [one for begin, end in cuts for one in range(begin, end)] == list(range(size))
    assert ALONE.part(7) == (0, 7) and ALONE.first and not Ranks(rank=1, count=2).first
    require_share(8, 4)
    with pytest.raises(
        ConfigError, match=r"train\.batch_size: found 6, the images of all ranks.*multiple of 4"
    ):
        require_share(6, 4)


def test_torchruns_variables_say_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_by_torchrun({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}) == 3
    # Set by others too, and then by halves.
    assert started_by_torchrun({"WORLD_SIZE": "3"}) == started_by_torchrun({}) == 1
    assert rank_device("auto", 1) == rank_device("cpu", 1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert rank_device("auto", 1) == rank_device("cuda", 1) == torch.device("cuda", 1)
    assert rank_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(ConfigError, match="rank 2 of this machine has no GPU of its own"):
        rank_device("auto", 2)
    with pytest.raises(ConfigError, match="found 'cuda:1' for several ranks"):
        rank_device("cuda:1", 0)
