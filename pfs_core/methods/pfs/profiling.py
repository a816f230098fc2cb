"""A profile of a gate step: where its time goes, and how fast it could be at best on this machine."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.data.loading import load_split
from pfs_core.methods.context import search_context
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.search import gated
from pfs_core.runtime.device import pick_device
from pfs_core.storage.artifacts import check_out, publish, write_json
from pfs_core.training.checkpoints import Checkpoints

logger = logging.getLogger(__package__)

WARM_UP, STEPS = 3, 10
"""Steps that do not count, and steps that are measured."""
ROWS = 12
"""Operations in the table."""


def profile_search(
    spec: ModelSpec, split: str | Path, out: str | Path, budget: Budget, config: PfsConfig, seed: int = 0
) -> dict[str, Any]:
    """Run some steps of a search, and report where their time goes in ``profile.json`` and ``trace.json``.

    The profile has two lower bounds for the time of a step: that of the arithmetic of convolutions and linear layers at
    the rate of a large matrix product, and that of reading their inputs and writing their outputs at the rate of a
    copy, both forward and backward. No step can be faster than the larger of the two.

    Args:
        spec: the network.
        split: a ``split`` folder.
        out: the folder to write.
        budget: the budget of the search.
        config: the settings of the search.
        seed: the seed of the search.

    Returns:
        The content of ``profile.json``.

    Raises:
        UserError: as :func:`pfs_core.methods.run.search`.
    """
    check_out(out, "profile")
    device = pick_device()
    data = load_split(split, device)
    network, history = gated(search_context(spec, data, budget, config, seed, partial(Checkpoints, out)))
    normalise = Normalise(data.info, device, network.layout)
    batches = full_batches(data.part("train"), config.batch_size)

    def step() -> None:
        images, labels = next(batches)
        loss = F.cross_entropy(network(normalise(images)), labels)
        network.step(loss + config.gamma * (network.mean() - history.target) ** 2)

    values = 0

    def count_values(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel()

    layers = [layer for layer in network.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count_values) for layer in layers]
    with FlopCounterMode(display=False) as counter:
        step()
    for hook in hooks:
        hook.remove()
    for _ in range(WARM_UP):
        step()
    seconds = sum(_timed(step, device) for _ in range(STEPS)) / STEPS
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
    dtype = torch.bfloat16 if network.precision == "bf16" else torch.float32
    arithmetic = counter.get_total_flops() / _flops_per_second(device, dtype)
    memory = 2 * values * dtype.itemsize / _bytes_per_second(device)  # twice: forward and backward
    result = {
        "ms_a_step": 1000 * seconds,
        "gflop_a_step": counter.get_total_flops() / 1e9,
        "floor_arithmetic_ms": 1000 * arithmetic,
        "floor_memory_ms": 1000 * memory,
        "operations": _operations(profiler),
    }
    with publish(out, "profile") as folder:
        write_json(folder / "profile.json", result)
        profiler.export_chrome_trace(str(folder / "trace.json"))
    logger.info(f"{'operation':<40} {'ms per step':>11} {'share':>6} {'calls':>6}")
    for row in result["operations"]:
        logger.info(f"{row['operation']:<40} {row['ms']:>11.2f} {row['share']:>6.1%} {row['calls']:>6.0f}")
    logger.info(
        f"a step takes {result['ms_a_step']:.1f} ms; its {result['gflop_a_step']:.1f} GFLOP alone take "
        f"{result['floor_arithmetic_ms']:.1f} ms at this machine's rate, its memory traffic {1000 * memory:.1f} ms"
    )
    return result


def full_batches(images: Images, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of as many epochs as are needed, without the smaller one at the end of an epoch."""
    random = torch.Generator().manual_seed(0)
    while True:
        for batch, labels in images.epoch(size, random):
            if len(labels) >= min(size, len(images.labels)):
                yield batch, labels


def _operations(profiler: torch.profiler.profile) -> list[dict[str, Any]]:
    """Return the operations that take longest, by their own time on the device, with time and calls per step."""
    events = [event for event in profiler.key_averages() if not event.key.startswith("ProfilerStep")]
    on_gpu = any(event.device_type == DeviceType.CUDA for event in events)
    microseconds = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events
    }
    calls = {event.key: event.count for event in events}
    total = sum(microseconds.values())
    longest = sorted(microseconds, key=lambda name: -microseconds[name])[:ROWS]
    return [
        {
            "operation": name[:40],
            "ms": microseconds[name] / 1000 / STEPS,
            "share": microseconds[name] / total,
            "calls": calls[name] / STEPS,
        }
        for name in longest
    ]


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a large matrix product; one multiply-add counts as two operations."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / min(_timed(lambda: a @ a, device) for _ in range(7))


def _bytes_per_second(device: torch.device) -> float:
    """Measure the rate of a copy that is too large for any cache; reading and writing both count."""
    a = torch.empty(2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * len(a) / min(_timed(lambda: b.copy_(a), device) for _ in range(7))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    """Run ``work``, and return the seconds that it took on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
