"""In which precision a machine computes fastest, and passes in it."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from trainers.recipes import Amp, TrainRecipe


def autocast(device: torch.device, amp: Amp) -> torch.autocast:
    """Passes on a device in this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16")


def fastest(device: torch.device) -> Amp:
    """``bf16`` where the device has arithmetic of its own for it, else ``off``.

    That is a GPU with bfloat16 (NVIDIA's from compute capability 8.0 on), or a processor with AMX or the bfloat16
    instructions of AVX-512; what they gain there is measured in ``benchmarks/training_throughput.py``. Of other
    processors and devices we know nothing, nor where torch is too old to tell.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "off"
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if found.get("amx_bf16") or found.get("avx512_bf16") else "off"


def settled(train: TrainRecipe, device: torch.device) -> TrainRecipe:
    """The recipe with ``auto`` replaced by what is fastest on a device."""
    return replace(train, amp=fastest(device)) if train.amp == "auto" else train
