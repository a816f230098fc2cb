"""Latency models of this machine, and the fastest channel multiple: measured once, then read from a cache."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.latency.machine import machine
from pfs_core.latency.model import LatencyModel, MeasuredNetwork, fit
from pfs_core.latency.protocol import quiet
from pfs_core.latency.runtimes import missing
from pfs_core.latency.sampling import PairTimer, draw_widths
from pfs_core.models import build_model
from pfs_core.runtime.device import usable_cores
from pfs_core.runtime.environment import cache_folder
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.storage.digests import json_digest

logger = logging.getLogger(__package__)

FITTED, TESTED = 60, 20
"""How many structures a latency model is fitted to, and on how many others its error is measured."""
MULTIPLES = (1, 2, 4, 8, 16)
"""The channel multiples that ``channel_multiple=auto`` compares."""
_TIE = 0.03
"""Multiples whose latencies differ by less than this fraction are equally fast."""
_VERSION = 1
"""Part of every cache key; raise it when earlier measurements can no longer be used."""


def latency_model(
    spec: ModelSpec, graph: ChannelGraph, runtime: str, threads: int, channel_multiple: int, seed: int = 0
) -> LatencyModel:
    """Return the latency model of a network on this machine, from the cache if it was measured before.

    The cache is in ``$PFS_CACHE`` (default ``~/.cache/pfs``). The name of a file is a digest of everything that the
    measurement depends on: the machine, the versions of the runtimes, the network's layers, its expansion, its prunable
    groups, and the arguments.

    Args:
        spec: the network, with the expansion that it was searched at.
        graph: its channel graph, unexpanded.
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to measure with; where there are fewer cores, their number.
        channel_multiple: a number that the widths of the measured structures are multiples of.
        seed: seed of the random widths of the measured structures.

    Raises:
        UserError: the runtime is not installed.
    """
    if reason := missing(runtime):
        raise UserError(f"a latency budget in {runtime} cannot be measured here: {reason}")
    threads = min(threads, len(usable_cores()))
    expanded = graph.expanded(spec.expand, spec.expand_stream)
    here = machine()
    prunable = [group.name for group in graph.prunable()]
    path = _cached("latency", here, spec, graph, prunable, runtime, threads, channel_multiple, seed)
    if path.exists():
        found = LatencyModel.parse(read_json(path), str(path))
        logger.info(f"latency model of {spec.name} in {runtime} read from {path}")
        return found
    logger.info(
        f"latency model of {spec.name} in {runtime}: measuring {FITTED + TESTED} structures, once on this machine"
    )
    measured, dense_ms = _measure(spec, graph, expanded, runtime, threads, channel_multiple, seed)
    learned = fit(graph, measured[:FITTED], dense_ms)
    values = {
        "schema": "pfs.latency-model/1",
        "machine": here,
        "runtime": runtime,
        "threads": threads,
        "channel_multiple": channel_multiple,
        "dense_ms": dense_ms,
        "fitted": tuple(measured[:FITTED]),
        "tested": tuple(measured[FITTED:]),
        **learned,
    }
    model = LatencyModel.model_validate({**values, "error_median": 0.0, "error_p90": 0.0})
    errors = [abs(model.milliseconds(graph, m.widths) / (m.ratio * dense_ms) - 1) for m in model.tested]
    model = LatencyModel.model_validate(
        {**values, "error_median": float(np.median(errors)), "error_p90": float(np.quantile(errors, 0.9))}
    )
    logger.info(
        f"latency model  dense {dense_ms:.3f} ms, error {model.error_median:.1%} (median) and {model.error_p90:.1%} "
        f"(p90) on {TESTED} structures that it was not fitted to"
    )
    _keep(path, model.model_dump(mode="json", by_alias=True))
    return model


def fastest_multiple(
    spec: ModelSpec, graph: ChannelGraph, candidates: Mapping[int, Mapping[str, int]], runtime: str, threads: int
) -> int:
    """Return the channel multiple whose structure is the fastest on this machine, or the smallest within 3% of it.

    Measurements are cached like latency models, so that the same request always leads to the same structure.

    Args:
        spec: the network.
        graph: its channel graph, unexpanded.
        candidates: the widths that each multiple would lead to, all of about the same cost.
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to measure with; where there are fewer cores, their number.

    Raises:
        UserError: the runtime is not installed.
    """
    if reason := missing(runtime):
        raise UserError(f"channel_multiple=auto in {runtime} cannot be measured here: {reason}")
    threads = min(threads, len(usable_cores()))
    path = _cached("multiple", machine(), spec, graph, list(candidates.items()), runtime, threads)
    if path.exists():
        ratios = {int(multiple): ratio for multiple, ratio in read_json(path).items()}
    else:
        with _stopwatch(spec, graph, runtime, threads) as watch:
            ratios = {multiple: watch.ratio(widths) for multiple, widths in candidates.items()}
        _keep(path, {str(multiple): ratio for multiple, ratio in ratios.items()})
    best = min(ratios.values())
    chosen = min(multiple for multiple, ratio in ratios.items() if ratio <= best * (1 + _TIE))
    found = ", ".join(f"{multiple}: {ratio:.3f}" for multiple, ratio in ratios.items())
    logger.info(
        f"channel_multiple={chosen}; latency in {runtime} as a fraction of the dense network's, by multiple: {found}"
    )
    return chosen


def _measure(
    spec: ModelSpec,
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    runtime: str,
    threads: int,
    multiple: int,
    seed: int,
) -> tuple[list[MeasuredNetwork], float]:
    """Measure random structures; returns them with the median latency of the dense network in milliseconds."""
    rng = np.random.default_rng(seed)
    drawn = [draw_widths(graph, expanded, multiple, rng) for _ in range(FITTED + TESTED)]
    measured = []
    with _stopwatch(spec, graph, runtime, threads) as watch:
        for place, widths in enumerate(drawn, 1):
            measured.append(MeasuredNetwork(widths=widths, ratio=watch.ratio(widths)))
            if place % 20 == 0:
                logger.info(f"latency model  {place} of {len(drawn)} structures")
    return measured, float(np.median(watch.dense_ms))


@contextlib.contextmanager
def _stopwatch(spec: ModelSpec, graph: ChannelGraph, runtime: str, threads: int) -> Any:
    with torch.random.fork_rng(devices=[]), quiet(threads):
        yield PairTimer(build_model(spec).eval(), graph, runtime, threads)


def _cached(kind: str, here: Mapping[str, Any], spec: ModelSpec, graph: ChannelGraph, *more: Any) -> Path:
    """Return the file of a measurement; its name is a digest of everything that the measurement depends on."""
    key = [_VERSION, here, spec.model_dump(mode="json"), [asdict(term) for term in graph.terms], *more]
    return cache_folder("PFS_CACHE") / f"{kind}-{json_digest(key, 16)}.json"


def _keep(path: Path, values: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # without a cache the next run measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, values)
