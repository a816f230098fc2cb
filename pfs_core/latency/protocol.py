"""How latencies are taken: all networks in one process, once a round, in an order shuffled each round."""

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
from pfs_core.latency.statistics import median_interval
from pfs_core.runtime.device import usable_cores

LOADS = 5
"""How often the networks of a measurement are loaded anew: where their weights happen to lie in memory makes one and
the same network a few tenths of a percent faster or slower, for as long as it stays there."""


def loaded_and_interleaved(
    loaders: Mapping[str, Callable[[], Callable[[], Any]]], config: LatencyConfig, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A measurement in :data:`LOADS` parts, each on networks loaded anew, in an order of its own: the first is slower.

    Returns:
        Nanoseconds of each run, int64 [rounds] a name, and the part that each round is of, int64 [rounds].
    """
    order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
    seeds = range(seed, seed + LOADS**2, LOADS)
    parts = [interleaved(_loaded(loaders, order), config, each, share=LOADS) for each in seeds]
    samples = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return samples, np.repeat(np.arange(LOADS), [len(next(iter(part.values()))) for part in parts])


def _loaded(loaders: Mapping[str, Callable[[], Callable[[], Any]]], order: random.Random) -> dict[str, Any]:
    names = list(loaders)
    order.shuffle(names)
    runs = {name: loaders[name]() for name in names}
    return {name: runs[name] for name in loaders}


def interleaved(
    runs: Mapping[str, Callable[[], Any]], config: LatencyConfig, seed: int, share: int = 1
) -> dict[str, np.ndarray]:
    """Nanoseconds of each run in each round: int64 [rounds] a name. Ratios are to the first one.

    Rounds go on until every interval is as narrow as the config asks, or its time is up; at least ``min_rounds``. With
    ``share`` these are what so many such parts should come to together.
    """
    least, width = math.ceil(config.min_rounds / share), config.relative_width * math.sqrt(share)
    order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
    names = list(runs)
    deadline = time.perf_counter() + config.warmup_seconds / share
    warm = 0
    while warm < config.warmup_rounds or time.perf_counter() < deadline:
        order.shuffle(names)
        for name in names:
            runs[name]()
        warm += 1
    taken: dict[str, list[int]] = {name: [] for name in names}
    deadline = time.perf_counter() + config.max_seconds / share
    check = least
    while True:
        order.shuffle(names)
        for name in names:
            start = time.perf_counter_ns()
            runs[name]()
            taken[name].append(time.perf_counter_ns() - start)
        rounds = len(taken[name])
        if rounds < least:
            continue
        if time.perf_counter() > deadline:
            break
        if rounds >= check:
            check *= 2
            if _narrow(taken, width):
                break
    return {name: np.array(taken[name], dtype=np.int64) for name in runs}


def _narrow(taken: Mapping[str, list[int]], relative_width: float) -> bool:
    values = [np.array(t, dtype=np.float64) for t in taken.values()]
    for series in [*values, *(v / values[0] for v in values[1:])]:
        low, high = median_interval(series, resamples=200)
        if high - low > relative_width * float(np.median(series)):
            return False
    return True


def _pin(allowed: set[int]) -> None:
    """Keep every thread of this process on ``allowed`` cores, where the system can (Linux)."""
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), allowed)


@contextlib.contextmanager
def quiet(threads: int) -> Iterator[None]:
    """A fixed number of threads pinned to as many cores, and no garbage collection; all restored afterwards."""
    before, allowed, collecting = torch.get_num_threads(), usable_cores(), gc.isenabled()
    torch.set_num_threads(threads)
    _pin(set(sorted(allowed)[:threads]))
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        _pin(allowed)
        torch.set_num_threads(before)
