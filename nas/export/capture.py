"""A network as a graph of torch's operations (``torch.export``), from which ONNX and ``.pt2`` files are made."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

# A graph that holds for every size holds from two cells on: a map of one cell is another case for torch.
LEAST_CELLS = 2


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A graph and what may enter it.

    Attributes:
        program: the graph; one tensor in, a tuple of tensors out.
        outputs: their names.
        size: (height, width) px where only that may enter, None for all multiples of ``step``.
        step: largest stride of the network, px.
        dtype: of the images.
        least: multiples of ``step`` that both sides have at least, where any may enter.
    """

    program: ExportedProgram
    outputs: tuple[str, ...]
    size: tuple[int, int] | None
    step: int
    dtype: str = "float32"
    least: int = LEAST_CELLS

    @property
    def accepts(self) -> str:
        """A sentence."""
        if self.size is not None:
            return f"{self.dtype} (N, 3, {self.size[0]}, {self.size[1]}), any N"
        return f"{self.dtype} (N, 3, H, W), any N, H and W multiples of {self.step} from {self.least * self.step}"


class Maps(nn.Module):
    """A backbone that returns its maps as a tuple, fine to coarse."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (N, 3, H, W) -> one map a level."""
        return tuple(self.body(images).values())


def capture_backbone(
    backbone: nn.Module, levels: Mapping[str, tuple[int, int]], size: tuple[int, int]
) -> Captured:
    """Capture a backbone for any batch, and for any size where its operations allow that.

    Args:
        backbone: in evaluation mode, on the CPU.
        levels: level -> (channels, stride), in the order in which it returns them.
        size: (height, width) px, for a network whose graph holds for one size only.
    """
    step = max(stride for _, stride in levels.values())
    return captured(Maps(backbone).eval(), tuple(levels), size, step=step)


def captured(
    module: nn.Module,
    outputs: tuple[str, ...],
    size: tuple[int, int],
    *,
    step: int,
    least: int = LEAST_CELLS,
    dtype: torch.dtype = torch.float32,
) -> Captured:
    """Capture a module for any batch, and for any size where its operations allow that.

    Args:
        module: in evaluation mode; images (N, 3, H, W) in.
        outputs: names of what it gives.
        size: (height, width) px, for a module whose graph holds for one size only.
        step: what sides are multiples of, px.
        least: multiples that a side has at least, so that no map is of one cell.
        dtype: of the images.
    """
    batch = Dim("batch", min=1)
    name = str(dtype).removeprefix("torch.")
    # Sides that differ, so that nothing takes one for the other.
    tall, wide = (max(least, side // step) for side in size)
    example = torch.zeros(2, 3, step * tall, step * (wide if wide != tall else wide + 1), dtype=dtype)
    height, width = Dim("height", min=least), Dim("width", min=least)
    try:
        program = capture(module, example, {0: batch, 2: step * height, 3: step * width})
    except (RuntimeError, ValueError, torch._dynamo.exc.TorchDynamoException):
        # torch says in many ways that a graph would hold for one size only.
        program = capture(module, torch.zeros(2, 3, *size, dtype=dtype), {0: batch})
        return Captured(program=program, outputs=outputs, size=size, step=step, dtype=name)
    return Captured(program=program, outputs=outputs, size=None, step=step, dtype=name, least=least)


def capture(module: nn.Module, example: Tensor, dynamic: dict[int, object]) -> ExportedProgram:
    """The graph of a module of one input, some of whose dimensions may change."""
    with torch.no_grad(), quiet():
        return torch.export.export(module, (example,), dynamic_shapes=(dynamic,))


@contextmanager
def quiet() -> Iterator[None]:
    """torch's exporters warn of their own insides, of which nobody can do anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
