"""The device to compute on, its precision and memory, and the CPU cores of this process."""

import contextlib
import ctypes
import logging
import math
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import torch

from pfs_core.errors import one_line

logger = logging.getLogger(__package__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)


def pick_device() -> torch.device:
    """Return a CUDA device if there is one, else the CPU, on which torch then keeps to :func:`core_count` threads.

    Under torchrun each process gets the CUDA device of its ``LOCAL_RANK``.
    """
    _limit_threads()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")


def _limit_threads() -> None:
    """Let torch have no more threads than cores, unless ``OMP_NUM_THREADS`` says how many.

    It takes one per core of the machine, also in a container that may use few of them, where they wait for each other.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > core_count():
        torch.set_num_threads(core_count())


def usable_cores() -> set[int]:
    """Return the numbers of the CPU cores that this process may use.

    Where the system does not restrict processes to cores (macOS), these are all cores of the machine.
    """
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def core_count() -> int:
    """Return how many cores this process may use: those of :func:`usable_cores`, as far as a container's limit goes.

    The limit is read from the files of control groups, version 2 and 1.
    """
    cores = len(usable_cores())
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    with contextlib.suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup/cpu")
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
    return cores


def native_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 in hardware; emulation is slower than fp32."""
    if device.type == "cuda":
        answer: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return answer
    return torch.cpu._is_avx512_bf16_supported()


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return ``bf16`` or ``fp32``; ``auto`` becomes the better one for ``device``."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the autocast context of a precision that :func:`resolve_precision` returned."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def reuse_memory() -> None:
    """Let this process reuse the memory of large tensors instead of returning it to the system.

    Every training step allocates the same sizes again, and getting new pages from the system can take longer than the
    computation itself. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` compiled by torch.compile, with CUDA graphs on a GPU.

    If it cannot be compiled, which the first call finds out, a warning is logged and it runs uncompiled.
    """
    fast = torch.compile(function, mode="reduce-overhead" if torch.cuda.is_available() else None)
    works: bool | None = None  # not known before the first call

    def call(*arguments: Any) -> Any:
        nonlocal works
        if works is False:
            return function(*arguments)
        try:
            out = fast(*arguments)
        except Exception as e:
            if works:
                raise
            works = False
            logger.warning(f"torch.compile failed ({one_line(e)}); going on without")
            return function(*arguments)
        works = True
        return out

    return call


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has used so far, in MiB.

    Returns:
        ``host``, the resident memory without that of worker processes; on CUDA also ``device``, the memory of tensors.
    """
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


def memory_size(device: torch.device) -> int:
    """Return the bytes of memory of a GPU, or of this machine as far as a container's limit goes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = [psutil.virtual_memory().total]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int((Path("/sys/fs/cgroup") / file).read_text()))
    return min(sizes)


def memory_text(peak: Mapping[str, int]) -> str:
    """Describe a :func:`peak_memory` in words.

    >>> memory_text({"host": 1234})
    'peak memory 1,234 MiB host'
    """
    return "peak memory " + ", ".join(f"{mib:,} MiB {kind}" for kind, mib in peak.items())
