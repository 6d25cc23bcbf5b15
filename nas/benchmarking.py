"""``nas benchmark``: latency of a bundle as it is, compiled and in onnxruntime, in turn, or why there is no number.

A median taken while other work runs is a number all the same, and nobody sees it in it. So what was measured is judged
first: by the spread of the rounds, the drift of their second half against the first, and the load of the machine.
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.export.bundle import load_bundle
from nas.export.detector import load_detector
from nas.export.manifest import Kind, Manifest, read_declared, read_manifest
from nas.progress import RunProgress, Silent
from nas.report.measure import device_name, quiet, time_in_turn
from search_spaces.catalog import family_of
from search_spaces.errors import ConfigError
from trainers.detectors.detector import Detector
from trainers.loop import resolve_device

SPREAD = 0.10
"""From low to high quartile over the median: more than that is noise."""
DRIFT = 0.05
"""Median of the second half of the rounds over that of the first, less 1: more than that, up or down, is noise."""
SPARE = 0.5
"""Load that a machine may have beside one core for each thread of the benchmark, averaged over a minute."""
ONNX: Mapping[Kind, str] = {"detector": "detector.onnx", "backbone": "backbone.onnx"}
_LARGEST_ONNX = 2**31
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the rounds of one way to run a network took.

    Attributes:
        low_ms: low quartile.
        median_ms: of all rounds.
        high_ms: high quartile.
        spread: from quartile to quartile over the median.
        drift: median of the second half over that of the first, less 1.
    """

    low_ms: float
    median_ms: float
    high_ms: float
    spread: float
    drift: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Of seconds in the order in which they were measured."""
        taken = np.array(seconds) * 1000.0
        low, median, high = (float(one) for one in np.quantile(taken, [0.25, 0.5, 0.75]))
        half = len(taken) // 2
        drift = float(np.median(taken[half:]) / np.median(taken[:half])) - 1.0
        return cls(low_ms=low, median_ms=median, high_ms=high, spread=(high - low) / median, drift=drift)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What was measured, how, and whether it is to be believed.

    Attributes:
        kind: of what was timed: the whole detector, or the backbone of a bundle without one.
        input_size: (height, width) px; one image of noise a pass.
        device: its name.
        threads: of torch and of onnxruntime.
        rounds: timed passes of each way.
        cores: of the machine.
        load: of the machine over the minute before, None where the system does not say.
        timings: way -> what it took.
        left_out: way -> why it was not timed.
        noise: why no number is to be taken from it, a sentence each; empty on a quiet machine.
    """

    kind: Kind
    input_size: tuple[int, int]
    device: str
    threads: int
    rounds: int
    cores: int
    load: float | None
    timings: Mapping[str, Timing]
    left_out: Mapping[str, str]
    noise: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; on a noisy machine the medians are None."""
        found = asdict(self)
        if self.noise:
            for one in found["timings"].values():
                one["median_ms"] = None
        return {**found, "steady": not self.noise}


def benchmark(
    bundle: Path,
    input_size: tuple[int, int] | None = None,
    *,
    threads: int = 1,
    device: str = "cpu",
    rounds: int = 40,
    trust_code: bool = False,
    progress: RunProgress | None = None,
) -> Benchmark:
    """Time a bundle's detector, or its backbone where it has none.

    Args:
        bundle: of either.
        input_size: (height, width) px; that of the training when left out.
        threads: of torch and of onnxruntime.
        device: where to run; ``auto`` takes a GPU where there is one.
        rounds: each times every way to run it once, every time another one first.
        trust_code: see :func:`nas.export.detector.load_detector`.
        progress: listens.

    Raises:
        ConfigError: an option out of its range, or images that the network cannot take.
        RunError: no bundle, or one that was changed.
    """
    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ConfigError(f"--threads: found {threads}; allowed are 1 to {cores}, the cores of this machine")
    if rounds < 4:
        raise ConfigError(
            f"--rounds: found {rounds}; allowed are at least 4, for halves and quartiles of them"
        )
    load = _load()
    progress = progress or Silent()
    torch_device = resolve_device(device)
    manifest = read_manifest(bundle)
    run, network, usual, multiple = _network(bundle, manifest, trust_code=trust_code)
    size = input_size or usual
    if size is None:
        raise ConfigError("--input: is missing; a bundle without a detector states no size. Write HxW")
    if any(side < 1 or side % multiple for side in size):
        raise ConfigError(
            f"--input: found {size[0]}x{size[1]}; both sides are to be multiples of {multiple}, for its strides"
        )
    generator = torch.Generator().manual_seed(_SEED)
    bytes_ = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
    images = bytes_.to(torch_device) if manifest.kind == "detector" else (bytes_ / 255.0).to(torch_device)
    passes: dict[str, Callable[[], object]] = {"eager": lambda: run(network, images)}
    left_out: dict[str, str] = {}
    makers: dict[str, Callable[[], Callable[[], object] | str]] = {
        "torch.compile": lambda: _compiled(run, network, images),
        "onnxruntime": lambda: _onnx(bundle, manifest, bytes_, threads, torch_device),
    }
    with quiet([network], device=torch_device, threads=threads), torch.inference_mode():
        progress.phase("getting ready: torch.compile takes a minute or two", None)
        for name, make in makers.items():
            found = make()
            if isinstance(found, str):
                left_out[name] = found
            else:
                passes[name] = found
        progress.phase(f"timing {', '.join(passes)}", rounds)
        seconds = time_in_turn(passes, repeats=rounds, warm_up=3, device=torch_device, each=progress.advance)
    timings = {name: Timing.of(taken) for name, taken in seconds.items()}
    return Benchmark(
        kind=manifest.kind,
        input_size=size,
        device=device_name(torch_device),
        threads=threads,
        rounds=rounds,
        cores=cores,
        load=load,
        timings=timings,
        left_out=left_out,
        noise=noise_in(timings, load=load, cores=cores, threads=threads),
    )


def noise_in(
    timings: Mapping[str, Timing], *, load: float | None, cores: int, threads: int
) -> tuple[str, ...]:
    """Why timings are not to be believed, a sentence each."""
    found = []
    if load is not None and load > cores - threads + SPARE:
        found.append(
            f"load {load:.1f} on {cores} cores when it began: with {threads} threads of the benchmark, "
            f"at most {cores - threads + SPARE:.1f} leave a core for each"
        )
    for name, one in timings.items():
        if one.spread > SPREAD:
            found.append(
                f"{name}: the middle half of the rounds spreads over {one.spread:.0%} of their median, allowed are "
                f"{SPREAD:.0%}"
            )
        if abs(one.drift) > DRIFT:
            found.append(
                f"{name}: the second half of the rounds is {one.drift:+.0%} off the first, allowed are {DRIFT:.0%}"
            )
    return tuple(found)


def _network(
    bundle: Path, manifest: Manifest, *, trust_code: bool
) -> tuple[Callable[[nn.Module, Tensor], object], nn.Module, tuple[int, int] | None, int]:
    """How it is run, what is run, its usual input and what sides are multiples of."""
    if manifest.kind == "detector":
        loaded = load_detector(bundle, trust_code=trust_code)
        return _detect, loaded.detector, loaded.image_size, loaded.multiple
    architecture, weights = load_bundle(bundle, trust_code=trust_code)
    # Untrained weights take as long.
    network = family_of(architecture).build(architecture, seed=_SEED)
    if weights is not None:
        network.load_state_dict(weights)
    strides = [level.stride for level in family_of(architecture).levels(architecture).values()]
    return _features, network, None, max(strides)


def _detect(network: nn.Module, images: Tensor) -> object:
    assert isinstance(network, Detector)
    return network.detections(images)


def _features(network: nn.Module, images: Tensor) -> object:
    return network(images)


def _compiled(
    run: Callable[[nn.Module, Tensor], object], network: nn.Module, images: Tensor
) -> Callable[[], object] | str:
    """A pass of a compiled copy, or why there is none."""
    second = copy.deepcopy(network)
    try:
        if isinstance(second, Detector):
            # What comes after the maps depends on what is found, and cannot be compiled whole.
            second.backbone.compile()
        else:
            second.compile()
        run(second, images)
    except Exception as error:
        # Of a compiler anything may come; it is an answer to how fast it is here.
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return f"does not work here: {type(error).__name__}: {first[:160]}"
    return lambda: run(second, images)


def _onnx(
    bundle: Path, manifest: Manifest, images: Tensor, threads: int, device: torch.device
) -> Callable[[], object] | str:
    """A pass in onnxruntime, or why there is none; ``images`` are bytes."""
    name = ONNX[manifest.kind]
    if name not in manifest.files:
        return f"the bundle holds no {name}; export it anew, in all formats: nas export RUN --to {bundle}"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'vertebra[onnx]'"
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else ["CPUExecutionProvider"]
    if not set(wanted) <= set(onnxruntime.get_available_providers()):
        return f"this onnxruntime has no {wanted[0]}"
    content = read_declared(bundle, manifest, name, limit=_LARGEST_ONNX)
    try:
        # From memory: a model in a file could name other files to be read.
        session = onnxruntime.InferenceSession(content, options, providers=wanted)
        first = session.get_inputs()[0]
        taken = images if first.type == "tensor(uint8)" else images / 255.0
        feed = {first.name: taken.numpy()}
        session.run(None, feed)
    except Exception as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        return f"{name} does not run at this size: {type(error).__name__}: {line[:160]}"
    return lambda: session.run(None, feed)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
