"""Where to compute, and in which precision."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from pfs_core.runtime.progress import say

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def pick_device() -> torch.device:
    """A CUDA device if there is one, the first or that of torchrun's ``LOCAL_RANK``, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")


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


def reuse_memory() -> None:
    """Let this process keep the memory of large tensors for the next ones, instead of giving it back to the system.

    A training step frees and asks for the same sizes again and again; new pages cost more than what is computed on
    them. Without glibc, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` by torch.compile, with CUDA graphs on a GPU.

    Where the first call finds that it cannot be compiled, a line says so and it runs as it is.
    """
    fast = torch.compile(function, mode="reduce-overhead" if torch.cuda.is_available() else None)
    works: list[bool] = []

    def call(*arguments: Any) -> Any:
        if works == [False]:
            return function(*arguments)
        try:
            out = fast(*arguments)
        except Exception as e:
            if works:
                raise
            works.append(False)
            say(f"torch.compile failed ({type(e).__name__}: {str(e).splitlines()[0]}); going on without")
            return function(*arguments)
        works[:] = [True]
        return out

    return call


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
