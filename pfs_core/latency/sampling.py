"""Measuring networks of given widths against the dense network: the data that a latency model is fitted to."""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pfs_core.channels import ChannelGraph
from pfs_core.channels.resizing import with_widths
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import write_onnx_quickly
from pfs_core.latency.protocol import timed
from pfs_core.latency.runtimes import run_eager, run_onnx, run_openvino
from pfs_core.nn.fuse import fuse_batchnorm
from pfs_core.structure.blocks import fast_widths

_LEFT_OUT = 0.15
"""Share of the residual branches that a drawn network does without, where a cut may leave some out."""
_LEAST, _MOST, _SECONDS = 3, 60, 0.5
"""A network is timed this many times at least and at most, and for about this long in between: a few runs of a slow one
are as sure as many of a quick one."""


def draw_widths(
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    multiple: int,
    rng: np.random.Generator,
    block: int = 1,
) -> dict[str, int]:
    """Draw random widths of the kind that an extraction leads to.

    A factor is drawn for the whole network, and for each group another one around it.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the largest width of every group; groups that are not pruned keep it.
        multiple: a number that the widths of prunable groups are multiples of.
        rng: the random generator.
        block: the number of channels that the runtime computes at once; the nearest fast widths are taken.
    """
    share = rng.uniform(0.1, 1.0)
    widths = dict(expanded)
    for group in graph.prunable():
        step = int(np.lcm(multiple, group.per_gate))
        wanted = expanded[group.name] * share * rng.lognormal(0, 0.4)
        rounded = min(max(1, round(wanted / step)) * step, expanded[group.name])
        widths[group.name] = min(fast_widths(expanded[group.name], block, step), key=lambda w: abs(w - rounded))
    for branch in graph.branches if block > 1 else ():
        if rng.random() < _LEFT_OUT:
            widths |= dict.fromkeys(branch.groups, 0)
    return widths


class PairTimer:
    """Times networks of one model against its dense network, pair by pair, on one image.

    A pair takes turns, so that what slows the machine down slows both down, and the ratio stays the same.

    Attributes:
        dense_ms: the milliseconds of the dense network in every pair so far.

    Args:
        model: the network; it is resized to the widths.
        graph: its channel graph.
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to run on.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, runtime: str, threads: int) -> None:
        self.model, self.graph, self.runtime, self.threads = model, graph, runtime, threads
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(1, *graph.input_shape, generator=generator)
        self.dense_ms: list[float] = []
        self._order = random.Random(0)  # noqa: S311 - shuffles an order, keeps no secret
        self._dense = self._prepared(graph.widths())

    def ratio(self, widths: Mapping[str, int]) -> float:
        """Measure a network of these widths: its median time as a fraction of the dense network's."""
        runs = {"dense": self._dense, "other": self._prepared(widths)}
        ratios: list[float] = []
        deadline = time.perf_counter() + _SECONDS
        while len(ratios) < _LEAST or (len(ratios) < _MOST and time.perf_counter() < deadline):
            names = ["dense", "other"]
            self._order.shuffle(names)
            taken = {name: timed(runs[name]) for name in names}
            ratios.append(taken["other"] / taken["dense"])
            self.dense_ms.append(taken["dense"] / 1e6)
        return float(np.median(ratios))

    def _prepared(self, widths: Mapping[str, int]) -> Callable[[], Any]:
        """Return a function that runs a network of these widths in the runtime."""
        network = fuse_batchnorm(with_widths(self.model, self.graph, widths), self.images)
        return prepared(network, self.images, self.runtime, self.threads)


def prepared(network: nn.Module, images: torch.Tensor, runtime: str, threads: int) -> Callable[[], Any]:
    """Return a function that runs a network on ``images``, float32 [N, C, H, W], in a runtime.

    Raises:
        UserError: the runtime cannot run it.
    """
    try:
        if runtime == "eager":
            return run_eager(network, images.numpy(), threads)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            write_onnx_quickly(network, images, path)
            return {"onnxruntime": run_onnx, "openvino": run_openvino}[runtime](path, images.numpy(), threads)
    except Exception as e:  # a runtime that cannot run a network says so in its own way
        raise UserError(f"{runtime} cannot run this network: {str(e).strip().partition(chr(10))[0]}") from None
