"""A made-up run with every part of a report filled, for the tests of the page."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nas.report.data import (
    Box,
    Contender,
    CurvePoint,
    DataFacts,
    DetectionSample,
    ErfLevel,
    ErfReport,
    Latency,
    LevelFacts,
    Memory,
    Metrics,
    PhaseCost,
    RankCheck,
    RankEntry,
    ReportData,
    Reproduction,
    SeedResult,
    Split,
    Trial,
)
from nas.report.pictures import erf_png, jpeg
from search_spaces.architecture import Architecture, Genes

SETTINGS = Genes(
    {
        "block": "basic",
        "widths": (16, 32, 64, 128),
        "stem": "imagenet",
        "groups": 1,
        "width_per_group": 64,
    }
)
LEVELS = tuple(
    LevelFacts(name=f"c{level}", channels=channels, stride=2**level)
    for level, channels in ((2, 16), (3, 32), (4, 64), (5, 128))
)


def architecture(blocks: tuple[int, ...], dilations: tuple[int, ...] | None = None) -> Architecture:
    return Architecture(
        family="crnas.resnet",
        settings=SETTINGS,
        genes=Genes({"blocks": blocks, "dilations": dilations or (1,) * sum(blocks)}),
    )


def params(blocks: tuple[int, ...]) -> int:
    return 9_536 + sum(count * 4_672 * 4**stage for stage, count in enumerate(blocks))


def contender(
    name: str, network: Architecture, *, level: float, seeds: int, score: float, slow: float
) -> Contender:
    blocks = network.genes["blocks"]
    assert isinstance(blocks, tuple)
    draws = np.random.default_rng(round(1000 * level))
    results = []
    for seed in range(seeds):
        ap = level + float(draws.normal(0, 0.006))
        curve = tuple(
            CurvePoint(epoch=epoch, AP=ap * (1 - 0.85 * 0.9**epoch) + float(draws.normal(0, 0.003)))
            for epoch in (*range(4, 60, 4), 60)
        )
        metrics = Metrics(AP=ap, AP50=ap + 0.29, AP75=ap + 0.02, APs=ap - 0.16, APm=ap + 0.04, APl=ap + 0.11)
        results.append(SeedResult(seed=100 + seed, metrics=metrics, curve=curve))
    return Contender(
        name=name,
        architecture=network,
        params=params(tuple(int(str(count)) for count in blocks)),
        macs=113_246_208,
        input_size=(128, 160),
        levels=LEVELS,
        score=score,
        results=tuple(results),
        latency=Latency(
            median_ms=11.8 * slow,
            low_ms=11.4 * slow,
            high_ms=12.6 * slow,
            repeats=20,
            batch_size=1,
            input_size=(128, 160),
            device="cpu",
            threads=1,
        ),
        memory=Memory(
            parameter_bytes=4_600_000,
            activation_bytes=round(2_600_000 * slow),
            peak_bytes=4_600_000 + round(2_600_000 * slow),
            batch_size=1,
            input_size=(128, 160),
            device="cpu",
            how="tensors alive at the worst moment, without kernel scratch memory",
        ),
    )


def trials(winner: Architecture) -> tuple[Trial, ...]:
    draws, found = np.random.default_rng(5), []
    allocations = [
        (a, b, c, 8 - a - b - c)
        for a in range(1, 5)
        for b in range(1, 5)
        for c in range(1, 5)
        if 1 <= 8 - a - b - c <= 4
    ]
    for number, blocks in enumerate(allocations):
        network = architecture(blocks)
        failed = number == 11
        found.append(
            Trial(
                number=number,
                phase="stages",
                digest=network.digest,
                text=",".join(map(str, blocks)),
                state="failed" if failed else "complete",
                value=None if failed else 0.24 + 0.012 * blocks[3] + float(draws.normal(0, 0.012)),
                params=params(blocks),
                macs=113_246_208,
                reason="loss became nan in step 12 <box>" if failed else None,
            )
        )
    for number in range(66):
        decided = 1 if number < 3 else 2 + (number - 3) // 9
        complete = decided == 8
        dilations = tuple(int(value) for value in draws.integers(1, 4, size=8))
        network = winner if number == 60 else architecture((1, 2, 2, 3), dilations)
        found.append(
            Trial(
                number=number,
                phase="dilations",
                digest=network.digest if complete else f"prefix{number}",
                text=",".join(map(str, dilations[:decided])),
                state="complete",
                value=(0.318 if number == 60 else 0.27 + 0.004 * decided + float(draws.normal(0, 0.006))),
                params=params((1, 2, 2, 3)) if complete else None,
                macs=113_246_208 if complete else None,
                prefix=not complete,
            )
        )
    return tuple(found)


def erf_levels(stretch: tuple[float, float, float, float]) -> tuple[ErfLevel, ...]:
    canvas, found = 256, []
    axis = np.arange(canvas) - canvas / 2
    speckle = np.random.default_rng(2).uniform(0.2, 1.0, (canvas, canvas))
    for name, base, trf, anchor in (
        ("c2", 5, 43, 16),
        ("c3", 11, 99, 32),
        ("c4", 24, 211, 64),
        ("c5", 47, 435, 128),
    ):
        std = base * stretch[int(name[1]) - 2]
        bell = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * std**2)) * speckle
        side = min(round(trf * stretch[int(name[1]) - 2]), canvas)
        inside = (np.abs(axis) <= side / 2).astype(float)
        found.append(
            ErfLevel(
                level=name,
                std_px=std,
                area_px=3.4 * std,
                box_px=(side, side),
                trf_px=round(trf * stretch[int(name[1]) - 2]),
                anchor_px=anchor,
                png=erf_png(bell * inside[:, None] * inside[None, :]),
            )
        )
    return tuple(found)


def samples() -> tuple[DetectionSample, ...]:
    draws, found = np.random.default_rng(9), []
    for number in range(4):
        image = torch.from_numpy(draws.integers(25, 60, (3, 128, 160)).astype(np.uint8))
        truth, winner, baseline = [], [], []
        for index in range(3):
            x, y = 8 + 50 * index, int(draws.integers(8, 60))
            size = int(draws.integers(14, 46))
            image[:, y : y + size, x : x + size] = torch.tensor([200, 190, 120 + 40 * index])[:, None, None]
            truth.append(Box(x=x, y=y, width=size, height=size, label=str(index)))
            shift = [float(value) for value in draws.normal(0, 1.5, 4)]
            winner.append(
                Box(
                    x=x + shift[0],
                    y=y + shift[1],
                    width=size,
                    height=size,
                    label=str(index),
                    score=0.9 - 0.1 * index,
                )
            )
            baseline.append(
                Box(
                    x=x + 3 * shift[2],
                    y=y + 3 * shift[3],
                    width=size + 4,
                    height=size,
                    label=str(index),
                    score=0.6,
                )
            )
        found.append(
            DetectionSample(
                image_id=number,
                file_name=f"val/{number:04d}.jpg",
                width=160,
                height=128,
                jpeg=jpeg(image),
                truth=tuple(truth),
                winner=tuple(winner),
                baseline=tuple(baseline),
            )
        )
    return tuple(found)


def rank_check(found: tuple[Trial, ...]) -> RankCheck:
    draws = np.random.default_rng(3)
    chosen = [trial for trial in found if trial.phase == "stages" and trial.value is not None][::3][:10]
    entries = tuple(
        RankEntry(
            text=trial.text,
            digest=trial.digest,
            supernet=trial.value or 0.0,
            alone=(trial.value or 0.0) + 0.05 + float(draws.normal(0, 0.01)),
            params=trial.params or 0,
            macs=trial.macs or 0,
        )
        for trial in chosen
    )
    return RankCheck(how="Each trained alone for 15 epochs under seed 7.", entries=entries)


def made_up(*, gain: float = 0.016, seeds: int = 6) -> ReportData:
    """A complete report; ``gain`` is about the AP (fraction) of the winner over the baseline."""
    base, best = architecture((2, 2, 2, 2)), architecture((1, 2, 2, 3), (1, 1, 2, 1, 2, 2, 3, 3))
    found = trials(best)
    return ReportData(
        title="CR-NAS on handwritten digits",
        run="runs/demo",
        created="2026-10-04 14:31",
        state="complete",
        baseline=contender("ResNet [2,2,2,2]", base, level=0.351, seeds=seeds, score=0.27, slow=1.0),
        winner=contender("[1,2,2,3] dilated", best, level=0.351 + gain, seeds=seeds, score=0.318, slow=1.12),
        random=contender(
            "[2,1,2,3], best of 31",
            architecture((2, 1, 2, 3)),
            level=0.356,
            seeds=seeds,
            score=0.29,
            slow=1.05,
        ),
        trials=found,
        erf=ErfReport(
            canvas_px=256,
            images=2,
            how="Trained weights, validation images.",
            baseline=erf_levels((1.0, 1.0, 1.0, 1.0)),
            winner=erf_levels((0.7, 0.9, 1.15, 1.4)),
        ),
        detections=samples(),
        ranks=rank_check(found),
        cost=(
            PhaseCost(name="stage supernet", seconds=78.2, images=9_600, macs=3 * 9_600 * 113_246_208),
            PhaseCost(name="stages", seconds=41.0, images=31 * 240, macs=31 * 240 * 113_246_208, trials=31),
            PhaseCost(name="dilation supernet", seconds=66.5, images=8_000, macs=3 * 8_000 * 113_246_208),
            PhaseCost(name="dilations", seconds=58.4, images=66 * 96, macs=66 * 96 * 113_246_208, trials=66),
        ),
        data=DataFacts(
            name="embedded digits",
            digest="3f9c0a7be1d24c55",
            image_size="128 × 160, longest side 160",
            categories=tuple("0123456789"),
            splits=(
                Split(name="train", use="supernets, recalibration, retraining", images=320, objects=1_402),
                Split(name="held out", use="scores of candidates", images=80, objects=351),
                Split(name="val", use="the table, read once", images=120, objects=533),
            ),
            skipped=("train/0007.jpg: truncated file", "annotation 812: box of zero area"),
        ),
        reproduction=Reproduction(
            commands=(
                "nas search examples/recipes/crnas_digits.yaml --run runs/demo",
                "nas report runs/demo --check 10",
            ),
            versions={
                "vertebra": "0.1.0",
                "python": "3.11.9",
                "torch": "2.14.1",
                "torchvision": "0.29.1",
                "optuna": "5.0.0",
            },
            hardware="2 cores of an x86-64 CPU, 4 GiB",
            threads=2,
            seeds={"search": "0", "data": "17", "table": "100 to 105"},
            recipe="method: crnas\nseed: 0\ndata:\n  source: digits\n  image_size: 160\n",
            recipe_digest="77ab10c2e5d6f001",
            recipes_tried=("crnas_digits.yaml, 3000 steps: −0.2 AP (seeds 40 to 42)",),
        ),
        notes=("The thread count changed from 2 to 1 between the search and the retraining.",),
    )


@pytest.fixture(scope="session")
def example() -> Callable[..., ReportData]:
    """``example(gain=0.016, seeds=6)`` makes a complete report."""
    return made_up
