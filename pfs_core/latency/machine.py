"""What a latency figure depends on besides the network."""

import importlib.util
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16"}


def machine() -> dict[str, Any]:
    """CPU model, relevant flags, governor, cores, memory and versions of this machine, those of its runtimes too."""
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
        **{name: version(name) for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)},
    }


def processor_seconds() -> dict[str, float]:
    """Seconds of processor time, all cores together: used on this machine, by this process, stolen from the machine."""
    times, own = psutil.cpu_times(), os.times()
    return {
        "used": sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")),
        "own": own.user + own.system + own.children_user + own.children_system,
        "stolen": getattr(times, "steal", 0.0),
    }


def disturbance(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What others did in the seconds between two :func:`processor_seconds`, in cores.

    Returns:
        ``others``, the cores that other processes kept busy, and ``stolen``, those that other virtual machines took.
    """
    taken = {kind: after[kind] - before[kind] for kind in before}
    return {"others": max(taken["used"] - taken["own"], 0.0) / seconds, "stolen": taken["stolen"] / seconds}


def noise(found: Mapping[str, float], cores: int) -> list[str]:
    """What disturbed a measurement on a machine of so many cores: a reason each, none if it was quiet."""
    reasons = []
    if found["others"] > 0.1 * cores:
        reasons.append(f"other processes used {found['others']:.1f} of its {cores} cores")
    if found["stolen"] > 0.01 * cores:
        reasons.append(f"{found['stolen'] / cores:.0%} of its time was stolen by other virtual machines")
    return reasons


def _first_cpu() -> dict[str, str]:
    lines = _read("/proc/cpuinfo").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
