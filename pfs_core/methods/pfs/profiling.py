"""Where a gate step's time goes, and how quick it could be at best on this machine."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data.augment import Normalise
from pfs_core.data.loading import load_split
from pfs_core.methods.context import search_context
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.search import gated
from pfs_core.runtime.device import pick_device
from pfs_core.runtime.progress import say
from pfs_core.storage.artifacts import check_out, publish, write_json
from pfs_core.training.checkpoints import Checkpoints

WARM_UP, STEPS, ROWS = 3, 10, 12


def profile_search(
    spec: ModelSpec, split: str | Path, out: str | Path, budget: Budget, config: PfsConfig, seed: int = 0
) -> dict[str, Any]:
    """Run some steps, print what they spend their time on, and write ``profile.json`` and ``trace.json``.

    The floor is what the convolutions' and linear layers' arithmetic takes at the rate of a large matrix product, and
    what reading their inputs and writing their outputs takes at the rate of a copy, forward and backward; no step can
    be quicker than the larger of the two.

    Raises:
        UserError: as :func:`pfs_core.methods.pfs.search.search`.
    """
    check_out(out, "profile")
    device = pick_device()
    data = load_split(split, device)
    network, history = gated(search_context(spec, data, budget, config, seed, partial(Checkpoints, out)))
    normalise = Normalise(data.info, device, torch.channels_last)
    batches = data.part("train").epoch(config.batch_size, torch.Generator().manual_seed(0))

    def step() -> None:
        images, labels = next(batches)
        loss = F.cross_entropy(network(normalise(images)), labels)
        network.step(loss + config.gamma * (network.mean() - history.target) ** 2)

    values = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel()

    layers = [layer for layer in network.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with FlopCounterMode(display=False) as counter:
        step()
    for hook in hooks:
        hook.remove()
    for _ in range(WARM_UP):
        step()
    seconds = sum(_timed(step, device) for _ in range(STEPS)) / STEPS
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
    dtype = torch.bfloat16 if network.precision == "bf16" else torch.float32
    arithmetic = counter.get_total_flops() / _flops_a_second(device, dtype)
    memory = 2 * values * dtype.itemsize / _bytes_a_second(device)
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
    say(f"{'operation':<40} {'ms a step':>10} {'share':>6} {'calls':>6}")
    for row in result["operations"]:
        say(f"{row['operation']:<40} {row['ms']:>10.2f} {row['share']:>6.1%} {row['calls']:>6.0f}")
    say(
        f"a step takes {result['ms_a_step']:.1f} ms; its {result['gflop_a_step']:.1f} GFLOP alone take "
        f"{result['floor_arithmetic_ms']:.1f} ms at this machine's rate, its memory traffic {1000 * memory:.1f} ms"
    )
    return result


def _operations(profiler: torch.profiler.profile) -> list[dict[str, Any]]:
    """The operations that take most, by their own time on the device that computes."""
    events = [event for event in profiler.key_averages() if not event.key.startswith("ProfilerStep")]
    on_device = any(event.device_type == DeviceType.CUDA for event in events)
    taken = {e.key: (e.self_device_time_total if on_device else e.self_cpu_time_total, e.count) for e in events}
    total = sum(microseconds for microseconds, _ in taken.values())
    largest = sorted(taken.items(), key=lambda item: -item[1][0])[:ROWS]
    return [
        {"operation": key[:40], "ms": spent / 1000 / STEPS, "share": spent / total, "calls": count / STEPS}
        for key, (spent, count) in largest
    ]


def _flops_a_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product; one multiply-add is two."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / min(_timed(lambda: a @ a, device) for _ in range(7))


def _bytes_a_second(device: torch.device) -> float:
    """Of a copy that fits in no cache: read and written."""
    a = torch.empty(2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * len(a) / min(_timed(lambda: b.copy_(a), device) for _ in range(7))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that the work takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
