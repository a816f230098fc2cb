"""The protocol of a latency measurement: all networks in one process, once per round, in an order drawn each round.

The networks are interleaved because the speed of a machine changes over seconds (clock frequency, temperature, other
processes). Measured one after the other, networks would differ by that; in the ratios of the same rounds it cancels.
A network that has its turn runs twice, and the second run is timed (:func:`timed`): the first one brings its weights
into the cache, from where the others have driven them. So a network's time does not depend on how many others are
measured beside it, and is that of a server that computes one network again and again. The order is drawn anew each
round, for what of the others may be left all the same.
"""

import contextlib
import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pfs_core.config.stages import LatencyConfig
from pfs_core.latency.cores import cores_for
from pfs_core.latency.statistics import median_interval
from pfs_core.runtime.device import usable_cores

LOADS = 5
"""Number of times that the networks of a measurement are loaded. Where its weights happen to lie in memory makes one
and the same network a few tenths of a percent faster or slower as long as they stay there: more rounds do not help."""
_FEWEST = 5
"""Rounds of a load that are measured however slow the networks are."""


def loaded_and_interleaved(
    loaders: Mapping[str, Callable[[], Callable[[], Any]]], config: LatencyConfig, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measure in :data:`LOADS` parts, and load the networks anew for each part.

    Each part loads them in an order of its own, since the network that is loaded first is a few tenths of a percent
    slower.

    Args:
        loaders: for each network, a function that loads it and returns a function that runs it.
        config: the settings of the whole measurement, which the parts share.
        seed: the seed of all orders.

    Returns:
        The nanoseconds of each run, ``{name: int64 [rounds]}``, and the part that each round belongs to, int64
        [rounds].
    """
    order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
    seeds = range(seed, seed + LOADS**2, LOADS)
    parts = [interleaved(_loaded(loaders, order), config, each, share=LOADS) for each in seeds]
    samples = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return samples, np.repeat(np.arange(LOADS), [len(next(iter(part.values()))) for part in parts])


def _loaded(loaders: Mapping[str, Callable[[], Callable[[], Any]]], order: random.Random) -> dict[str, Any]:
    """Load the networks in a drawn order, and return them in the given one."""
    names = list(loaders)
    order.shuffle(names)
    runs = {name: loaders[name]() for name in names}
    return {name: runs[name] for name in loaders}


def interleaved(
    runs: Mapping[str, Callable[[], Any]], config: LatencyConfig, seed: int, share: int = 1
) -> dict[str, np.ndarray]:
    """Time everything once per round, until all intervals are narrow enough or the time is up.

    The intervals are those of the medians and of the median ratios to the first run. Of networks that are so slow that
    the time is up before, five rounds are measured.

    Args:
        runs: the functions to time, by name.
        config: the numbers of rounds, the times and the width of the intervals.
        seed: the seed of the orders.
        share: the number of such parts that the settings are meant for together. A part takes its share of the rounds
            and of the times; its intervals may be wider by the square root of that number.

    Returns:
        The nanoseconds of each run in each round, ``{name: int64 [rounds]}``.
    """
    check, width = math.ceil(config.min_rounds / share), config.relative_width * math.sqrt(share)
    order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
    names = list(runs)
    deadline = time.perf_counter() + config.warmup_seconds / share
    warm = 0
    while warm < config.warmup_rounds / share or time.perf_counter() < deadline:
        order.shuffle(names)
        for name in names:
            runs[name]()
        warm += 1
    taken: dict[str, list[int]] = {name: [] for name in names}
    deadline = time.perf_counter() + config.max_seconds / share
    while True:
        order.shuffle(names)
        for name in names:
            taken[name].append(timed(runs[name]))
        rounds = len(taken[names[0]])
        if rounds >= _FEWEST and time.perf_counter() > deadline:
            break
        if rounds >= check:
            check *= 2  # bootstrap intervals take time, so they are computed a logarithmic number of times
            if _narrow(taken, width):
                break
    return {name: np.array(taken[name], dtype=np.int64) for name in runs}


def timed(run: Callable[[], Any]) -> int:
    """Return the nanoseconds of the second of two runs."""
    run()
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def _narrow(taken: Mapping[str, list[int]], relative_width: float) -> bool:
    """Return whether the intervals of all medians, and of all ratios to the first, are narrow enough."""
    values = [np.array(t, dtype=np.float64) for t in taken.values()]
    for series in [*values, *(v / values[0] for v in values[1:])]:
        low, high = median_interval(series, resamples=200)
        if high - low > relative_width * float(np.median(series)):
            return False
    return True


def _pin(allowed: set[int]) -> None:
    """Keep every thread of this process on the ``allowed`` cores, where the system supports it (Linux)."""
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # the thread has ended in the meantime
            os.sched_setaffinity(int(thread.name), allowed)


@contextlib.contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Fix the number of threads, pin them to as many idle cores and stop garbage collection while the context lasts."""
    before, allowed, collecting = torch.get_num_threads(), usable_cores(), gc.isenabled()
    chosen = cores_for(threads)
    torch.set_num_threads(threads)
    _pin(chosen)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        _pin(allowed)
        torch.set_num_threads(before)
