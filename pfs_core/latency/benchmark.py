"""The fifth step: every network measured in the same process, interleaved, in an order shuffled each round."""

import contextlib
import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pfs_core.baselines import dense
from pfs_core.errors import UserError
from pfs_core.files import check_out, publish, write_json
from pfs_core.latency.machine import load, machine
from pfs_core.latency.statistics import median_interval, paired_ratio, summary
from pfs_core.progress import say
from pfs_core.recipes import LatencyRecipe
from pfs_core.spec import Budget
from pfs_core.structure import Structure

SCHEMA = "pfs.latency/1"


def benchmark(
    structures: Sequence[Structure],
    out: str | Path,
    recipe: LatencyRecipe = LatencyRecipe(),
    seed: int = 0,
) -> dict[str, Any]:
    """Measure structures against their dense network at batch size 1 and write the ``latency`` folder.

    Latency does not depend on what the weights are, so the networks are freshly initialised. ``samples.parquet`` has
    a row a measurement (model, runtime, round, nanoseconds), ``latency.json`` the statistics and the machine.

    Args:
        structures: of one model; the dense network is added where it is not among them.
        out: the folder to write.
        recipe: see :class:`LatencyRecipe`.
        seed: of the order and of the image.

    Returns:
        The content of ``latency.json``.

    Raises:
        UserError: the structures are of different models.
    """
    check_out(out, "latency")
    networks = with_dense(structures)
    threads = min(recipe.threads, len(_cores()))
    started = load()
    torch.manual_seed(seed)
    models = {name: structure.build().eval() for name, structure in networks.items()}
    image = torch.randn(1, *structures[0].model.input_shape)
    runs = {name: lambda model=model: model(image) for name, model in models.items()}
    say(f"latency of {', '.join(runs)} at batch 1 on {threads} thread{'s' * (threads > 1)}")
    with torch.inference_mode(), _quiet(threads):
        samples = interleaved(runs, recipe, seed)
    ended = load()
    stats = {name: {**networks[name].cost.model_dump(), **summary(values)} for name, values in samples.items()}
    ratios = {name: paired_ratio(samples[name], samples["dense"]) for name in samples if name != "dense"}
    info = {
        "schema": SCHEMA,
        "runtime": "eager",
        "batch": 1,
        "dtype": "float32",
        "layout": "contiguous",
        "threads": threads,
        "pinned": hasattr(os, "sched_setaffinity"),
        "models": stats,
        "ratios_to_dense": ratios,
        "machine": machine(),
        "load_1min": started["load_1min"],
        "steal_seconds": ended["steal_seconds"] - started["steal_seconds"],
        "recipe": recipe.model_dump(),
        "seed": seed,
    }
    with publish(out, "latency") as folder:
        pq.write_table(_table(samples), folder / "samples.parquet")
        write_json(folder / "latency.json", info)
    for name, ratio in ratios.items():
        low, high = ratio["interval"]
        say(
            f"latency {name}  p50 {stats[name]['p50_ms']:.3f} ms, dense {stats['dense']['p50_ms']:.3f} ms, "
            f"ratio {ratio['ratio']:.3f} [{low:.3f}, {high:.3f}]: {ratio['verdict']}"
        )
    return info


def with_dense(structures: Sequence[Structure]) -> dict[str, Structure]:
    """``{network: structure}`` with the dense one first."""
    first = structures[0]
    identity = (first.model.name, first.model.kwargs, first.model.input_shape, first.model.num_classes)
    named: dict[str, Structure] = {"dense": dense(first.graph(), Budget(target=1.0), model=first.model)}
    for structure in structures:
        model = structure.model
        if (model.name, model.kwargs, model.input_shape, model.num_classes) != identity:
            raise UserError(f"structures of different models ({first.model.name}, {model.name}) cannot be compared")
        if structure.network in named and structure.network != "dense":
            raise UserError(f"two structures are both {structure.network!r}; name one of them")
        named[structure.network] = structure
    return named


def interleaved(runs: Mapping[str, Callable[[], Any]], recipe: LatencyRecipe, seed: int) -> dict[str, np.ndarray]:
    """Nanoseconds of each run in each round: int64 [rounds] a name.

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
    values = {name: np.array(t, dtype=np.float64) for name, t in taken.items()}
    ratios = [v / values["dense"] for name, v in values.items() if name != "dense"]
    for series in [*values.values(), *ratios]:
        low, high = median_interval(series, resamples=200)
        if high - low > relative_width * float(np.median(series)):
            return False
    return True


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _pin(cores: set[int]) -> None:
    """Keep every thread of this process on ``cores``, where the system can (Linux)."""
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


@contextlib.contextmanager
def _quiet(threads: int) -> Iterator[None]:
    """A fixed number of threads pinned to as many cores, and no garbage collection; all restored afterwards."""
    before, cores, collecting = torch.get_num_threads(), _cores(), gc.isenabled()
    torch.set_num_threads(threads)
    _pin(set(sorted(cores)[:threads]))
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        _pin(cores)
        torch.set_num_threads(before)


def _table(samples: Mapping[str, np.ndarray]) -> pa.Table:
    names = [name for name, values in samples.items() for _ in values]
    rounds = np.concatenate([np.arange(len(values)) for values in samples.values()])
    values = np.concatenate(list(samples.values()))
    runtime = ["eager"] * len(names)
    return pa.table({"model": names, "runtime": runtime, "round": rounds, "nanoseconds": values})
