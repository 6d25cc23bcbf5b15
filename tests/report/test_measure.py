"""Latency and memory on networks whose bytes can be counted by hand."""

import torch
from torch import Tensor, nn

from nas.report.measure import measure_latency, measure_memory


class Chain(nn.Module):
    """Three 1x1 convolutions; at most two maps of 8 channels live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1, bias=False)
        self.rest = nn.ModuleList(nn.Conv2d(8, 8, 1, bias=False) for _ in range(3))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.seen.append(torch.get_num_threads())
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return {"c2": x}


def test_memory_counts_what_lives_at_once() -> None:
    found = measure_memory(Chain(), input_size=(16, 32))
    one_map = 8 * 16 * 32 * 4
    image = 3 * 16 * 32 * 4
    assert found.parameter_bytes == (3 * 8 + 3 * 64) * 4
    # The caller holds the images throughout.
    assert found.activation_bytes == 2 * one_map + image
    assert found.peak_bytes == found.parameter_bytes + found.activation_bytes


def test_memory_grows_with_the_batch() -> None:
    one, two = (measure_memory(Chain(), input_size=(16, 16), batch_size=size) for size in (1, 2))
    assert two.activation_bytes == 2 * one.activation_bytes


def test_latency_is_interleaved_and_leaves_no_trace() -> None:
    order: list[str] = []
    networks = {}
    for name in ("a", "b"):
        networks[name] = Chain().train()
        networks[name].register_forward_hook(lambda *_, name=name: order.append(name))
    threads = torch.get_num_threads()
    found = measure_latency(networks, input_size=(16, 16), repeats=3, warm_up=1, threads=2)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert set(networks["a"].seen) == {2}
    assert torch.get_num_threads() == threads
    assert networks["a"].training
    for latency in found.values():
        assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
        assert (latency.threads, latency.repeats, latency.device) == (2, 3, "cpu")
