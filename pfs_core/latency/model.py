"""A model that predicts a network's latency from its widths, by the time per MAC of each kind of layer on one machine.

    latency = constant + sum over the kinds of layer of (nanoseconds per MAC x MACs of these layers)

A kind is all layers with the same kernel on maps of the same size. Its MACs are counted with widths rounded up to whole
blocks, because vector units compute whole blocks.

The coefficients are a non-negative least-squares fit, in relative errors, to whole networks that were measured. Layers
are not measured one by one: alone, a small layer mostly takes the time of the call, and the effects of fusion, memory
layout and caches are missing. The coefficients are not negative, so that the prediction cannot fall when a network gets
wider; the cut at a budget relies on that.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from pfs_core.channels import ChannelGraph
from pfs_core.channels.elements import Term, features
from pfs_core.config.spec import Config
from pfs_core.structure.budget_cut import CostModel

BLOCKS = (1, 4, 8, 16)
"""Sizes of block that a fit chooses from, in channels."""
_FOLDS = 5


class LayerKind(Config):
    """Layers with the same time per multiply-accumulate."""

    layers: tuple[str, ...]
    """Names of the layers."""
    ns_per_mac: float
    """Nanoseconds per multiply-accumulate."""


class MeasuredNetwork(Config):
    """The measurement of one network."""

    widths: dict[str, int]
    """Width of every channel group."""
    ratio: float
    """Latency as a fraction of the dense network's."""


class LatencyModel(Config):
    """The latency model of one network on one machine, saved as JSON with schema ``pfs.latency-model/2``."""

    schema_: Literal["pfs.latency-model/2"] = Field(default="pfs.latency-model/2", alias="schema")
    machine: dict[str, Any]
    runtime: str
    threads: int
    channel_multiple: int
    dense_ms: float
    """Median latency of the unexpanded network in milliseconds."""
    block: int
    """Number of channels that widths are rounded up to a multiple of."""
    constant_ms: float
    """Time in milliseconds that does not depend on the widths."""
    kinds: tuple[LayerKind, ...]
    error_median: float
    """Median of the relative errors in a five-fold cross-validation: each network is predicted by a fit to others."""
    error_p90: float
    """90% quantile of these errors."""
    measured: tuple[MeasuredNetwork, ...]
    """Networks that the model was fitted to."""

    def summary(self) -> dict[str, Any]:
        """Return what a structure that was cut with this model records of it."""
        values = self.model_dump(include={"runtime", "threads", "dense_ms", "error_median", "error_p90"})
        return {**values, "cpu": self.machine["cpu"]}

    def milliseconds(self, graph: ChannelGraph, widths: Mapping[str, int]) -> float:
        """Predict the latency of ``widths`` in milliseconds; ``graph`` is that of the unexpanded network."""
        macs = macs_by_kind(graph, widths, self.block).values()
        return self.constant_ms + sum(kind.ns_per_mac * n for kind, n in zip(self.kinds, macs, strict=True)) / 1e6

    def cost_model(self, graph: ChannelGraph, advice: str = "") -> CostModel:
        """Return the cost of widths in milliseconds; ``advice`` is for messages."""
        return CostModel(partial(self.milliseconds, graph), self.dense_ms, lambda ms: f"{ms:.3f} ms", advice)


def fit(graph: ChannelGraph, measured: Sequence[MeasuredNetwork], dense_ms: float) -> dict[str, Any]:
    """Fit a :class:`LatencyModel` to measurements.

    The size of block is the one with the smallest mean error in a five-fold cross-validation.

    Args:
        graph: the channel graph of the unexpanded network.
        measured: measurements of the network at different widths.
        dense_ms: the latency of the unexpanded network in milliseconds.

    Returns:
        The fields ``block``, ``constant_ms``, ``kinds``, ``error_median`` and ``error_p90``.

    A network that takes 0.1 ms and 2 ns per MAC, for example:

    >>> from torch import nn
    >>> from pfs_core.channels import trace
    >>> layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3)]
    >>> graph = trace(nn.Sequential(*layers), (3, 8, 8))
    >>> drawn = [{**graph.widths(), "0": width} for width in range(1, 9)]
    >>> milliseconds = [0.1 + 2e-6 * graph.cost(widths).macs for widths in drawn]
    >>> measured = [MeasuredNetwork(widths=w, ratio=ms / 0.5) for w, ms in zip(drawn, milliseconds, strict=True)]
    >>> fitted = fit(graph, measured, dense_ms=0.5)
    >>> fitted["block"], round(fitted["constant_ms"], 3), round(fitted["error_p90"], 3)
    (1, 0.1, 0.0)
    """
    times = np.array([sample.ratio for sample in measured]) * dense_ms
    tables = {block: _table(graph, measured, block) for block in BLOCKS}
    errors = {block: _cross_validated(table, times) for block, table in tables.items()}
    block = min(errors, key=lambda b: float(errors[b].mean()))
    constant, *slopes = _solve(tables[block], times)
    names = [tuple(term.module for term in terms) for terms in _kinds(graph).values()]
    kinds = [LayerKind(layers=n, ns_per_mac=slope) for n, slope in zip(names, slopes, strict=True)]
    return {
        "block": block,
        "constant_ms": constant,
        "kinds": tuple(kinds),
        "error_median": float(np.median(errors[block])),
        "error_p90": float(np.quantile(errors[block], 0.9)),
    }


def macs_by_kind(graph: ChannelGraph, widths: Mapping[str, int], block: int) -> dict[tuple[int, ...], float]:
    """Return the MACs of every kind of layer, with widths rounded up to multiples of ``block``."""
    present = {term.module for term in graph.terms_at(widths)}
    return {
        kind: sum(_macs(term, widths, block) for term in terms if term.module in present)
        for kind, terms in _kinds(graph).items()
    }


def _kinds(graph: ChannelGraph) -> dict[tuple[int, ...], list[Term]]:
    """Return the cost terms by kind.

    Terms with the same coefficients are of one kind: ``params`` is the size of the kernel, and ``macs`` is the kernel
    times the pixels of the map. The number of spans tells a depthwise convolution (1) from a plain one (2), and
    other grouped convolutions are a kind of their own.
    """
    kinds: dict[tuple[int, ...], list[Term]] = {}
    for term in graph.terms:
        if term.macs:
            kinds.setdefault((len(term.spans), term.macs, term.params, term.groups), []).append(term)
    return kinds


def _macs(term: Term, widths: Mapping[str, int], block: int) -> float:
    sides = [math.ceil(features(span, widths) / block) * block for span in term.spans]
    return term.macs * math.prod(sides) / term.groups


def _table(graph: ChannelGraph, measured: Sequence[MeasuredNetwork], block: int) -> np.ndarray:
    """Return the design matrix of the fit, float64 [networks, 1 + kinds].

    Its columns are 1 and the millions of MACs of each kind, so that the coefficients are in milliseconds and in
    nanoseconds per MAC.
    """
    return np.array([[1, *(n / 1e6 for n in macs_by_kind(graph, m.widths, block).values())] for m in measured])


def _solve(table: np.ndarray, times: np.ndarray) -> list[float]:
    """Return the non-negative coefficients with the least sum of squared relative errors."""
    solution, _ = nnls(table / times[:, None], np.ones(len(times)))
    result: list[float] = solution.tolist()
    return result


def _cross_validated(table: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the relative errors on the networks of each fold, fitted to those of the others, float64 [networks]."""
    fold = np.arange(len(times)) % _FOLDS
    errors = [
        np.abs(table[fold == k] @ _solve(table[fold != k], times[fold != k]) / times[fold == k] - 1)
        for k in range(_FOLDS)
    ]
    return np.concatenate(errors)
