"""Arrays as base64 pictures that a page can carry inside itself."""

import base64
import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# Dark violet to pale yellow with even steps of lightness: reads the same in grey and for colour-blind eyes.
_COLOURS = np.array(
    [[9, 7, 22], [56, 17, 88], [117, 30, 110], [176, 49, 91], [224, 84, 54], [247, 144, 40], [252, 243, 176]],
    dtype=np.float64,
)


def erf_png(gradient: NDArray[np.floating], *, side: int = 256) -> str:
    """An ERF map as base64 of a PNG of at most ``side`` pixels.

    The square root of the magnitude is drawn, which keeps the faint rim of the field visible.

    Args:
        gradient: (H, W), not negative, any scale.
        side: longest side of the picture; larger maps are averaged down.
    """
    values = torch.from_numpy(np.ascontiguousarray(gradient, dtype=np.float64))
    if values.ndim != 2:
        raise ValueError(f"an ERF map has two dimensions; found shape {tuple(values.shape)}")
    factor = -(-max(values.shape) // side)
    if factor > 1:
        values = torch.nn.functional.avg_pool2d(values[None, None], factor, ceil_mode=True)[0, 0]
    peak = float(values.max())
    level = (values / peak if peak > 0 else values).clamp(0, 1).sqrt().numpy()
    stops = np.linspace(0.0, 1.0, len(_COLOURS))
    colours = np.stack([np.interp(level, stops, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return _base64(colours.round().astype(np.uint8), format="PNG", optimize=True)


def jpeg(image: Tensor, *, quality: int = 82) -> str:
    """A picture as base64 of a JPEG.

    Args:
        image: uint8 (3, H, W).
        quality: 1 to 100.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a picture is uint8 (3, H, W); found {image.dtype} {tuple(image.shape)}")
    return _base64(image.permute(1, 2, 0).cpu().numpy(), format="JPEG", quality=quality)


def _base64(pixels: NDArray[np.uint8], *, format: str, quality: int = 75, optimize: bool = False) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=format, quality=quality, optimize=optimize)
    return base64.b64encode(file.getvalue()).decode("ascii")
