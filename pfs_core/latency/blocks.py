"""How many channels a runtime computes at once on this machine: measured once, then read from a cache.

Networks of narrow layers are measured at widths from 16 to 64. If time rises in steps, a block is as long as a step.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import Config
from pfs_core.config.stages import LatencyConfig
from pfs_core.latency.machine import machine
from pfs_core.latency.protocol import interleaved, quiet
from pfs_core.latency.runtimes import usable_threads
from pfs_core.latency.sampling import prepared

logger = logging.getLogger(__package__)

WIDTHS = tuple(range(16, 65, 4))
"""The widths that are measured."""
SIZES = (4, 8, 16, 32)
"""The sizes of block that are told apart. In blocks of 4 the times rise evenly at these widths."""
_CLEARLY = 2.0
"""A squared error that is larger by more than this factor is clearly larger."""
_TIMING = LatencyConfig(warmup_seconds=0.5, max_seconds=5.0, min_rounds=100, relative_width=0.02)


class WidthTimes(Config):
    """The times of layers by their width, saved as JSON with schema ``pfs.width-times/1``."""

    schema_: Literal["pfs.width-times/1"] = Field(default="pfs.width-times/1", alias="schema")
    machine: dict[str, Any]
    runtime: str
    threads: int
    milliseconds: dict[int, float]
    """Median time of a network whose layers have this width."""
    block: int
    """Number of channels that the runtime computes at once."""


def runtime_block(runtime: str, threads: int = 1) -> int:
    """Return how many channels a runtime computes at once here, from the cache if it was measured before.

    The cache is in ``$PFS_CACHE`` (default ``~/.cache/pfs``); a measurement takes a few seconds.

    Args:
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to measure with; where there are fewer cores, their number.

    Raises:
        UserError: the runtime is not installed.
    """
    threads = usable_threads(runtime, threads, "extract.blocks=auto")
    here = machine()
    path = cache_file("widths", here, runtime, threads, WIDTHS)

    def measure() -> WidthTimes:
        logger.info(f"measuring how many channels {runtime} computes at once, once on this machine")
        found = _measure(runtime, threads)
        return WidthTimes(
            machine=here, runtime=runtime, threads=threads, milliseconds=found, block=block_of_steps(found)
        )

    times = made_once(path, WidthTimes, measure)
    logger.info(f"{runtime} computes {times.block} channels at once")
    return times.block


def block_of_steps(milliseconds: Mapping[int, float]) -> int:
    """Return the length of the steps in which a time rises with the width.

    For every size of block, a line is fitted to the times over the number of whole blocks. Of the sizes whose squared
    error is not clearly above that of the best, the smallest is returned: without steps, all fit about equally well.

    Args:
        milliseconds: the time at each width.

    >>> block_of_steps({width: 0.1 + 0.2 * -(-width // 16) for width in WIDTHS})
    16
    >>> block_of_steps({width: 0.1 + 0.01 * width for width in WIDTHS})
    4
    """
    times = np.array(list(milliseconds.values()))

    def error(size: int) -> float:
        whole = [math.ceil(width / size) for width in milliseconds]
        line = np.polynomial.Polynomial.fit(whole, times, deg=1)
        return float(np.square(line(np.array(whole)) - times).sum())

    errors = {size: error(size) for size in SIZES}
    return next(size for size in SIZES if errors[size] <= _CLEARLY * min(errors.values()) + 1e-12)


def _measure(runtime: str, threads: int) -> dict[int, float]:
    images, networks = measured_networks()
    with quiet(threads):
        runs = {width: prepared(network, images, runtime, threads) for width, network in networks.items()}
        return width_times(runs)


def measured_networks() -> tuple[torch.Tensor, dict[int, nn.Module]]:
    """Return images and, for each width, a network in which four such layers follow and precede ones of 32 channels."""
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return images, {width: _network(width) for width in WIDTHS}


def width_times(runs: Mapping[int, Callable[[], Any]]) -> dict[int, float]:
    """Return the median milliseconds of functions by the width that each computes; they take turns."""
    samples = interleaved({str(width): run for width, run in runs.items()}, _TIMING, seed=0)
    return {int(width): float(np.median(taken)) / 1e6 for width, taken in samples.items()}


def _network(width: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()
