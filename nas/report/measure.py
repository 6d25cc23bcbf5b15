"""Latency and memory of backbones on this machine.

Networks to be compared are timed in turn within each repeat, so that a machine that slows down slows all of
them: their ratios mean something where their absolute values drift.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.report.data import Latency, Memory


def measure_latency(
    networks: Mapping[str, nn.Module],
    *,
    input_size: tuple[int, int],
    batch_size: int = 1,
    repeats: int = 20,
    warm_up: int = 3,
    threads: int = 1,
    device: torch.device | None = None,
) -> dict[str, Latency]:
    """Median and quartiles of one forward pass of each network, in milliseconds.

    Args:
        networks: name -> backbone; each repeat times all of them once, every time another one first.
        input_size: height and width in pixels.
        batch_size: images a pass.
        repeats: timed passes of each network.
        warm_up: passes of each network before the clock runs.
        threads: of torch on the CPU while measuring; the number before is put back.
        device: where to run; the CPU by default. The networks are moved there and stay there.
    """
    if repeats < 1 or warm_up < 0 or threads < 1:
        raise ValueError(
            f"needs repeats >= 1, warm_up >= 0, threads >= 1; found {repeats}, {warm_up}, {threads}"
        )
    device = device or torch.device("cpu")
    images = torch.zeros(batch_size, 3, *input_size, device=device)
    with quiet(networks.values(), device=device, threads=threads), torch.inference_mode():
        seconds = time_in_turn(
            {name: partial(network, images) for name, network in networks.items()},
            repeats=repeats,
            warm_up=warm_up,
            device=device,
        )
    return {
        name: _latency(times, batch_size=batch_size, input_size=input_size, device=device, threads=threads)
        for name, times in seconds.items()
    }


def time_in_turn(
    passes: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int,
    device: torch.device,
    each: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every timed call, in the order in which they were made.

    Args:
        passes: name -> what is timed; each repeat times all of them once, every time another one first.
        repeats: timed calls of each.
        warm_up: calls of each before the clock runs.
        device: that has to be done before the clock stops.
        each: told how many repeats are done.
    """
    names = list(passes)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(warm_up):
            _timed(passes[name], device)
    for repeat in range(repeats):
        turn = repeat % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_timed(passes[name], device))
        if each is not None:
            each(repeat + 1)
    return seconds


def measure_memory(
    network: nn.Module,
    *,
    input_size: tuple[int, int],
    batch_size: int = 1,
    device: torch.device | None = None,
) -> Memory:
    """Bytes of parameters and of the activations alive at the worst moment of one forward pass.

    On the CPU every tensor an operation writes is followed until it is freed, which leaves out the scratch
    memory of the kernels; on CUDA the allocator's own peak is read.

    Args:
        network: the backbone; moved to ``device`` and left there.
        input_size: height and width in pixels.
        batch_size: images a pass.
        device: where to run; the CPU by default.
    """
    device = device or torch.device("cpu")
    with quiet([network], device=device, threads=torch.get_num_threads()), torch.inference_mode():
        parameters = sum(
            tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers())
        )
        if device.type == "cuda":
            activations, how = (
                _cuda_peak(network, batch_size, input_size, device),
                "peak of the CUDA allocator",
            )
        else:
            with _LiveBytes() as live:
                # Made inside, so that the images count as they do on CUDA.
                network(torch.zeros(batch_size, 3, *input_size))
            activations, how = live.peak, "tensors alive at the worst moment, without kernel scratch memory"
    return Memory(
        parameter_bytes=parameters,
        activation_bytes=activations,
        peak_bytes=parameters + activations,
        batch_size=batch_size,
        input_size=input_size,
        device=device_name(device),
        how=how,
    )


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that an operation returns until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not _freed(entry[0])}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._alive[reference.cdata] = (reference, storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _freed(reference: StorageWeakRef) -> bool:
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def _cuda_peak(network: nn.Module, batch_size: int, input_size: tuple[int, int], device: torch.device) -> int:
    network(torch.zeros(batch_size, 3, *input_size, device=device))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(torch.zeros(batch_size, 3, *input_size, device=device))
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


@contextmanager
def quiet(networks: Any, *, device: torch.device, threads: int) -> Iterator[None]:
    """Evaluation mode and a stated thread count, both put back afterwards."""
    networks = list(networks)
    threads_before, modes = torch.get_num_threads(), [network.training for network in networks]
    try:
        torch.set_num_threads(threads)
        for network in networks:
            network.to(device).eval()
        yield
    finally:
        torch.set_num_threads(threads_before)
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


def _latency(
    seconds: list[float], *, batch_size: int, input_size: tuple[int, int], device: torch.device, threads: int
) -> Latency:
    low, median, high = np.quantile(np.array(seconds) * 1000.0, [0.25, 0.5, 0.75])
    return Latency(
        median_ms=float(median),
        low_ms=float(low),
        high_ms=float(high),
        repeats=len(seconds),
        batch_size=batch_size,
        input_size=input_size,
        device=device_name(device),
        threads=threads,
    )


def device_name(device: torch.device) -> str:
    """What a GPU calls itself, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
