"""An exponential moving average of the weights that a training moves (Polyak averaging)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages of parameters, held aside while these are trained and exchanged with them where averages are wanted.

    Not ``torch.optim.swa_utils.AveragedModel``: that is a second network, and whoever gave a trainer its detector looks
    for the averages in it. Buffers (statistics of batch normalisation) are those of the training at any time.

    A weight is averaged when it has moved, so one off a supernet's path keeps its average as it keeps its value, and
    its decay follows its own moves: min(decay, (1 + n) / (10 + n)) at the n-th.

    Args:
        parameters: by name; the averages begin with their values.
        decay: of the average.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._aside: dict[str, Tensor] = {
            name: one.detach().clone() for name, one in self._parameters.items()
        }
        self._moves = dict.fromkeys(self._parameters, 0)
        self._entered = False

    def update(self) -> None:
        """Take in the weights that a step has just moved, which are those with a gradient."""
        together: dict[int, list[str]] = {}
        for name, one in self._parameters.items():
            if one.grad is not None:
                self._moves[name] += 1
                together.setdefault(self._moves[name], []).append(name)
        for moves, names in together.items():
            decay = min(self._decay, (1 + moves) / (10 + moves))
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(
                [self._aside[name] for name in names],
                [self._parameters[name].detach() for name in names],
                moves,
            )

    def enter(self) -> None:
        """Let the parameters be the averages."""
        if not self._entered:
            self._exchange()

    def leave(self) -> None:
        """Let the parameters be those in training."""
        if self._entered:
            self._exchange()
        # In the layout that the parameters have by now, for the update walks through both.
        for name, one in self._parameters.items():
            self._aside[name] = torch.empty_like(one).copy_(self._aside[name])

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, the parameters are the averages."""
        self.enter()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on needs besides the averages, while these are the parameters."""
        assert self._entered, "the averages are saved as the network's weights"
        return {"weights": dict(self._aside), "moves": dict(self._moves)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from parameters that are the averages and the rest as :meth:`state_dict` gave it."""
        for name, value in state["weights"].items():
            self._aside[name] = torch.empty_like(self._parameters[name]).copy_(value)
        self._moves = dict(state["moves"])
        self._entered = True
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, one in self._parameters.items():
            held = one.detach().clone()
            one.copy_(self._aside[name])
            self._aside[name] = held
        self._entered = not self._entered
