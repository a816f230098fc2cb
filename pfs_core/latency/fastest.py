"""Where a latency is asked for: the runtime and the number of threads that the dense network is fastest in.

Threads that gain next to nothing are not taken: they keep cores busy, and the times of a small network on several
threads vary by more than what they gain.
"""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from pfs_core.channels import ChannelGraph
from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import Config, ModelSpec
from pfs_core.config.stages import LatencyConfig
from pfs_core.errors import UserError
from pfs_core.latency.learning import network_key
from pfs_core.latency.machine import machine
from pfs_core.latency.protocol import interleaved, quiet
from pfs_core.latency.runtimes import Run, check_usable, missing
from pfs_core.latency.sampling import prepared
from pfs_core.models import build_model
from pfs_core.nn.fuse import fuse_batchnorm
from pfs_core.runtime.device import core_count

logger = logging.getLogger(__package__)

CANDIDATES = ("onnxruntime", "openvino", "eager")
"""The runtimes to choose from, as far as they are installed."""
_WORTH = 1.1
"""Factor by which the dense network must be faster on more threads, or else the fewest are taken."""
_TIMING = LatencyConfig(warmup_seconds=1.0, warmup_rounds=3, max_seconds=6.0)
_SHARE = 8
"""An eighth of a measurement's rounds and time are enough to choose by."""


class DenseTime(Config):
    """The time of the dense network in one runtime on a number of threads."""

    runtime: str
    threads: int
    milliseconds: float

    def __str__(self) -> str:
        return f"{self.runtime} on {self.threads} thread(s) {self.milliseconds:.3f} ms"


class DenseTimes(Config):
    """The times of a dense network on one machine, saved as JSON with schema ``pfs.dense-times/1``."""

    schema_: Literal["pfs.dense-times/1"] = Field(default="pfs.dense-times/1", alias="schema")
    times: tuple[DenseTime, ...]
    failed: dict[str, str] = Field(default_factory=dict)
    """Why runtimes that are installed could not be measured."""


def fastest(spec: ModelSpec, graph: ChannelGraph, runtime: str, threads: int | str) -> tuple[str, int]:
    """Return the runtime and the number of threads in which the dense network is fastest here, batch 1.

    More threads are taken only where it is faster on them by a tenth. The times are measured once on a machine and kept
    in ``$PFS_CACHE``.

    Args:
        spec: the network.
        graph: its channel graph, unexpanded.
        runtime: the only runtime to look at, or ``auto``.
        threads: the only number of threads to look at, or ``auto``: one, and one for each core.

    Raises:
        UserError: the runtime is not installed, or none can compute the network.
    """
    if runtime != "auto" and threads != "auto":
        return runtime, int(threads)
    if runtime != "auto":
        check_usable(runtime, "a latency budget")
    runtimes = [name for name in CANDIDATES if not missing(name)] if runtime == "auto" else [runtime]
    # All cores come first: OpenVINO never uses more of them than it found at first.
    counts = sorted({1, core_count()}, reverse=True) if threads == "auto" else [int(threads)]
    network = network_key(spec, graph)
    path = cache_file("dense", machine(), *network, runtimes, counts) if network else None
    found = made_once(path, DenseTimes, lambda: _measure(spec, runtimes, counts))
    for why in found.failed.values():
        logger.warning(f"{why}; it is left out")
    fewest = min(counts)
    best, *others = sorted(found.times, key=lambda t: t.milliseconds * (1 if t.threads == fewest else _WORTH))
    beside = f", before {', '.join(map(str, others))}" if others else ""
    logger.info(f"latency in {best}, the best for the dense network{beside}")
    return best.runtime, best.threads


def _measure(spec: ModelSpec, runtimes: Sequence[str], counts: Sequence[int]) -> DenseTimes:
    images = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    times: list[DenseTime] = []
    failed: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]):
        dense = fuse_batchnorm(build_model(spec).eval(), images)
        for count in counts:
            with quiet(count):
                runs: dict[str, Run] = {}
                for name in runtimes:
                    try:
                        runs[name] = prepared(dense, images, name, count)
                    except UserError as e:
                        failed[name] = str(e)
                samples = interleaved(runs, _TIMING, seed=0, share=_SHARE) if runs else {}
            times += [
                DenseTime(runtime=name, threads=count, milliseconds=float(np.median(taken)) / 1e6)
                for name, taken in samples.items()
            ]
    if not times:
        raise UserError("; ".join(failed.values()))
    return DenseTimes(times=tuple(times), failed=failed)
