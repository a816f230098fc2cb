"""Where to compute, and in which precision."""

import contextlib
import resource
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

import torch


def pick_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def native_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware (emulation is slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def resolve_precision(precision: str, device: torch.device) -> str:
    """``bf16`` or ``fp32``: what ``auto`` means on this device."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The autocast context of a resolved precision."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def memory_format(device: torch.device, precision: str, widths: Iterable[int]) -> torch.memory_format:
    """The faster layout for a network of these widths.

    channels_last, except for bf16 on a CPU with a width that is no multiple of 16, where it is slower
    (``benchmarks/layout.py`` measures both).
    """
    if device.type == "cpu" and precision == "bf16" and any(width % 16 for width in widths):
        return torch.contiguous_format
    return torch.channels_last


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory that this process has used until now, in MiB.

    ``host`` is resident memory, without that of worker processes; on CUDA ``device`` is what tensors were allocated in.
    """
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


def memory_text(peak: Mapping[str, int]) -> str:
    """What :func:`peak_memory` gives, as words."""
    return "peak memory " + ", ".join(f"{mib:,} MiB {kind}" for kind, mib in peak.items())
