"""The machine that latency is measured on, and how much other programs disturbed a measurement."""

import contextlib
import importlib.util
import logging
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

logger = logging.getLogger(__package__)

_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16"}


def machine() -> dict[str, Any]:
    """Describe this machine: CPU, its instruction sets, governor, cores, memory in GiB, and the versions of software.

    The result is part of ``latency.json`` and of the names of cached measurements.
    """
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
        **{name: _version(name) for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)},
    }


def _version(package: str) -> str:
    """Return the version of a package, which may come in a distribution of another name, as that for GPUs does."""
    try:
        return version(package)
    except PackageNotFoundError:
        distributions = packages_distributions().get(package)
        return version(distributions[0]) if distributions else "unknown"


def processor_seconds(living: bool = False) -> dict[str, float]:
    """Return the processor time spent so far, in seconds, summed over all cores.

    Args:
        living: count processes that this one has started and that still run as its own.

    Returns:
        ``used`` on this machine, ``own`` by this process and its children that have ended, and ``stolen`` by other
        virtual machines.
    """
    times, own = psutil.cpu_times(), [os.times()[:4]]
    for child in psutil.Process().children(recursive=True) if living else ():
        with contextlib.suppress(psutil.Error):
            own.append(child.cpu_times()[:4])
    return {
        "used": sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")),
        "own": float(np.sum(own)),
        "stolen": getattr(times, "steal", 0.0),
    }


def disturbance(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return how many cores were taken from a measurement on average.

    Args:
        before: the :func:`processor_seconds` before the measurement.
        after: those after it.
        seconds: the time between the two.

    Returns:
        ``others``, the cores that other processes kept busy, and ``stolen``, those that other virtual machines took.
    """
    taken = {kind: after[kind] - before[kind] for kind in before}
    return {"others": max(taken["used"] - taken["own"], 0.0) / seconds, "stolen": taken["stolen"] / seconds}


def wait_until_quiet(patience_seconds: float, probe_seconds: float = 1.0) -> None:
    """Wait until other processes and virtual machines leave this machine alone.

    Args:
        patience_seconds: the longest time to wait.
        probe_seconds: the time for which the machine is watched at a time.
    """
    deadline = time.monotonic() + patience_seconds
    said = False
    while time.monotonic() < deadline:
        before, start = processor_seconds(), time.monotonic()
        time.sleep(probe_seconds)
        found = disturbance(before, processor_seconds(), time.monotonic() - start)
        if not (reasons := noise(found, os.cpu_count() or 1)):
            return
        if not said:
            for reason in reasons:
                logger.info(f"waiting up to {patience_seconds:.0f} s for quiet: {reason}")
            said = True


def noise(found: Mapping[str, float], cores: int) -> list[str]:
    """Return the reasons why a measurement may be disturbed; none if the machine was quiet.

    Args:
        found: the :func:`disturbance` of the measurement.
        cores: the number of cores of the machine.
    """
    reasons = []
    if found["others"] > 0.1 * cores:
        reasons.append(f"other processes used {found['others']:.1f} of its {cores} cores")
    if found["stolen"] > 0.01 * cores:
        reasons.append(f"other virtual machines took {found['stolen'] / cores:.0%} of its time")
    return reasons


def _first_cpu() -> dict[str, str]:
    lines = _read("/proc/cpuinfo").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
