"""How long networks of given widths take beside the dense one: what a latency model learns from."""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pfs_core.channels import ChannelGraph, resize
from pfs_core.export.onnx_file import write_onnx_quickly
from pfs_core.latency.runtimes import run_eager, run_onnx, run_openvino
from pfs_core.nn.fuse import fuse_batchnorm

_LEAST, _MOST, _SECONDS = 10, 60, 0.7


def draw_widths(
    graph: ChannelGraph, expanded: Mapping[str, int], multiple: int, rng: np.random.Generator
) -> dict[str, int]:
    """Random widths as an extraction could come to: one share for all groups, and a share of it for each.

    Args:
        graph: of the unexpanded network.
        expanded: the largest width of every group; groups that are not pruned keep it.
        multiple: of the widths.
        rng: the source of chance.
    """
    share = rng.uniform(0.1, 1.0)
    widths = dict(expanded)
    for group in graph.prunable():
        step = int(np.lcm(multiple, group.blocks))
        wanted = expanded[group.name] * share * rng.lognormal(0, 0.4)
        widths[group.name] = min(max(1, round(wanted / step)) * step, expanded[group.name])
    return widths


class PairTimer:
    """Times networks of one model against its dense network, a pair at a time.

    Attributes:
        dense_ms: milliseconds of the dense network in every pair so far.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, runtime: str, threads: int, seed: int = 0) -> None:
        """The runtime is ``onnxruntime``, ``eager`` or ``openvino``; batch 1."""
        self.model, self.graph, self.runtime, self.threads = model, graph, runtime, threads
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(1, *graph.input_shape, generator=generator)
        self.dense_ms: list[float] = []
        self._order = random.Random(seed)  # noqa: S311 - shuffles an order, keeps no secret
        self._dense = self._prepared(graph.widths())

    def ratio(self, widths: Mapping[str, int]) -> float:
        """The median time of a network of these widths, as a share of the dense one's."""
        runs = {"dense": self._dense, "other": self._prepared(widths)}
        for run in [*runs.values()] * 3:
            run()
        ratios: list[float] = []
        deadline = time.perf_counter() + _SECONDS
        while len(ratios) < _LEAST or (len(ratios) < _MOST and time.perf_counter() < deadline):
            names = ["dense", "other"]
            self._order.shuffle(names)
            taken = {name: _nanoseconds(runs[name]) for name in names}
            ratios.append(taken["other"] / taken["dense"])
            self.dense_ms.append(taken["dense"] / 1e6)
        return float(np.median(ratios))

    def _prepared(self, widths: Mapping[str, int]) -> Callable[[], Any]:
        network = fuse_batchnorm(resize(self.model, self.graph, widths))
        images = self.images.numpy()
        if self.runtime == "eager":
            return run_eager(network, images, self.threads)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            write_onnx_quickly(network, self.images, path)
            return {"onnxruntime": run_onnx, "openvino": run_openvino}[self.runtime](path, images, self.threads)


def _nanoseconds(run: Callable[[], Any]) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start
