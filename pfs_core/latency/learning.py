"""Latency models of this machine: measured once, then read from a cache."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from pfs_core.channels import ChannelGraph
from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import ModelSpec
from pfs_core.latency.machine import machine
from pfs_core.latency.model import LatencyModel, MeasuredNetwork, fit
from pfs_core.latency.protocol import quiet
from pfs_core.latency.runtimes import usable_threads
from pfs_core.latency.sampling import PairTimer, draw_widths
from pfs_core.models import build_model
from pfs_core.models.sources import known_by

logger = logging.getLogger(__package__)

MOST, LEAST, SECONDS = 80, 10, 12.0
"""So many structures are measured at most and at least, and for about this long in between."""
_LINE_SECONDS = 3.0
"""Time between two lines of progress."""


def latency_model(
    spec: ModelSpec,
    graph: ChannelGraph,
    runtime: str,
    threads: int,
    channel_multiple: int,
    block: int = 1,
) -> LatencyModel:
    """Return the latency model of a network on this machine, from the cache if it was measured before.

    The cache is in ``$PFS_CACHE`` (default ``~/.cache/pfs``). The name of a file is a digest of everything that the
    measurement depends on: the machine, the versions of the runtimes, the network's layers and code, its expansion, its
    prunable groups, and the arguments.

    Args:
        spec: the network, with the expansion that it was searched at.
        graph: its channel graph, unexpanded.
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to measure with; where there are fewer cores, their number.
        channel_multiple: a number that the widths of the measured structures are multiples of.
        block: the number of channels that the runtime computes at once; the measured structures have fast widths.

    Raises:
        UserError: the runtime is not installed.
    """
    threads = usable_threads(runtime, threads, "a latency budget")
    here = machine()
    network = network_key(spec, graph)
    path = cache_file("latency", here, *network, runtime, threads, channel_multiple, block) if network else None

    def measure() -> LatencyModel:
        logger.info(f"latency model of {spec.name} in {runtime}: measured for {SECONDS:.0f} s, once here")
        with pair_timer(spec, graph, runtime, threads) as timer:
            measured = _measure(spec, graph, timer, channel_multiple, block)
        dense_ms = float(np.median(timer.dense_ms))
        about = {"machine": here, "runtime": runtime, "threads": threads, "channel_multiple": channel_multiple}
        fitted = fit(graph, measured, dense_ms)
        return LatencyModel.model_validate({**about, "dense_ms": dense_ms, "measured": tuple(measured), **fitted})

    model = made_once(path, LatencyModel, measure)
    logger.info(
        f"latency model  dense {model.dense_ms:.3f} ms, error {model.error_median:.1%} (p90 {model.error_p90:.1%}), "
        f"{len(model.measured)} structures"
    )
    return model


def network_key(spec: ModelSpec, graph: ChannelGraph) -> list[Any] | None:
    """Return what the latency of a network's structures depends on: its layers and code, and what may change.

    Returns:
        JSON values; None where some of the code was typed in somewhere.
    """
    known = known_by(spec)
    if known is None:
        return None
    prunable = [group.name for group in graph.prunable()]
    return [spec.model_dump(mode="json"), known, [asdict(term) for term in graph.terms], prunable]


@contextlib.contextmanager
def pair_timer(spec: ModelSpec, graph: ChannelGraph, runtime: str, threads: int) -> Iterator[PairTimer]:
    """Yield a timer of a network's structures, on a machine that is kept as quiet as it can be."""
    with torch.random.fork_rng(devices=[]), quiet(threads):
        yield PairTimer(build_model(spec).eval(), graph, runtime, threads)


def _measure(
    spec: ModelSpec, graph: ChannelGraph, timer: PairTimer, multiple: int, block: int
) -> list[MeasuredNetwork]:
    """Measure random structures until there are enough or the time is up."""
    rng = np.random.default_rng(0)
    expanded = graph.expanded(spec.expand, spec.expand_stream)
    measured: list[MeasuredNetwork] = []
    start = said = time.perf_counter()
    while len(measured) < LEAST or (len(measured) < MOST and time.perf_counter() < start + SECONDS):
        widths: Mapping[str, int] = draw_widths(graph, expanded, multiple, rng, block)
        measured.append(MeasuredNetwork(widths=dict(widths), ratio=timer.ratio(widths)))
        if time.perf_counter() > said + _LINE_SECONDS:
            said = time.perf_counter()
            logger.info(f"latency model  {len(measured)} structures measured in {said - start:.0f} s")
    return measured
