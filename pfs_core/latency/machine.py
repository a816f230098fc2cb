"""What a latency figure depends on besides the network."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16"}


def machine() -> dict[str, Any]:
    """CPU model, relevant flags, governor, cores, memory and versions of this machine."""
    info = _first_cpu()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "flags": sorted(flags & _FLAGS),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def load() -> dict[str, float]:
    """Load average of the last minute, and seconds of processor time stolen from this machine since it started."""
    return {"load_1min": os.getloadavg()[0], "steal_seconds": getattr(psutil.cpu_times(), "steal", 0.0)}


def noise(before: dict[str, float], after: dict[str, float], seconds: float) -> list[str]:
    """What disturbed a measurement of so many seconds between two :func:`load`: a reason each, none if it was quiet."""
    cores = os.cpu_count() or 1
    stolen = (after["steal_seconds"] - before["steal_seconds"]) / (seconds * cores)
    reasons = []
    if before["load_1min"] > 0.5 * cores:
        reasons.append(f"it was at work before: a load of {before['load_1min']:.1f} on {cores} cores")
    if stolen > 0.01:
        reasons.append(f"{stolen:.0%} of its time was stolen by other virtual machines")
    return reasons


def _first_cpu() -> dict[str, str]:
    lines = _read("/proc/cpuinfo").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
