"""How latencies are taken: all networks in one process, once a round, in an order shuffled each round."""

import contextlib
import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pfs_core.latency.statistics import median_interval
from pfs_core.recipes import LatencyRecipe


def interleaved(runs: Mapping[str, Callable[[], Any]], recipe: LatencyRecipe, seed: int) -> dict[str, np.ndarray]:
    """Nanoseconds of each run in each round: int64 [rounds] a name. Ratios are to the first one.

    Rounds go on until every interval is as narrow as the recipe asks, or its time is up; at least ``min_rounds``.
    """
    order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
    names = list(runs)
    deadline = time.perf_counter() + recipe.warmup_seconds
    warm = 0
    while warm < recipe.warmup_rounds or time.perf_counter() < deadline:
        for name in names:
            runs[name]()
        warm += 1
    taken: dict[str, list[int]] = {name: [] for name in names}
    deadline = time.perf_counter() + recipe.max_seconds
    check = recipe.min_rounds
    while True:
        order.shuffle(names)
        for name in names:
            start = time.perf_counter_ns()
            runs[name]()
            taken[name].append(time.perf_counter_ns() - start)
        rounds = len(taken[name])
        if rounds < recipe.min_rounds:
            continue
        if time.perf_counter() > deadline:
            break
        if rounds >= check:
            check *= 2
            if _narrow(taken, recipe.relative_width):
                break
    return {name: np.array(taken[name], dtype=np.int64) for name in runs}


def _narrow(taken: Mapping[str, list[int]], relative_width: float) -> bool:
    values = [np.array(t, dtype=np.float64) for t in taken.values()]
    for series in [*values, *(v / values[0] for v in values[1:])]:
        low, high = median_interval(series, resamples=200)
        if high - low > relative_width * float(np.median(series)):
            return False
    return True


def cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _pin(allowed: set[int]) -> None:
    """Keep every thread of this process on ``allowed`` cores, where the system can (Linux)."""
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), allowed)


@contextlib.contextmanager
def quiet(threads: int) -> Iterator[None]:
    """A fixed number of threads pinned to as many cores, and no garbage collection; all restored afterwards."""
    before, allowed, collecting = torch.get_num_threads(), cores(), gc.isenabled()
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
