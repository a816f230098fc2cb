"""A network's latency from its widths: what each kind of layer takes a multiply-accumulate on one machine.

    latency = constant + sum over the kinds of layer of (nanoseconds a MAC x MACs of its layers)

A kind is all layers of one kernel over maps of one size; its MACs are counted with widths rounded up to whole blocks,
as vector units compute them. The figures are a non-negative least-squares fit (in relative errors) to whole networks
that were measured, so fusion, layout and cache are in them, and the prediction cannot fall as a network gets wider.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from pfs_core.channels import ChannelGraph
from pfs_core.channels.graph import Term, features
from pfs_core.config.spec import Config

BLOCKS = (1, 4, 8, 16)


class LayerKind(Config):
    """Layers that cost alike."""

    layers: tuple[str, ...]
    ns_per_mac: float


class Measured(Config):
    """A network that was measured; ``ratio`` is its latency as a share of the dense network's."""

    widths: dict[str, int]
    ratio: float


class LatencyModel(Config):
    """The table of one network on one machine, as JSON with schema ``pfs.latency-model/1``."""

    schema_: Literal["pfs.latency-model/1"] = Field(default="pfs.latency-model/1", alias="schema")
    machine: dict[str, Any]
    runtime: str
    threads: int
    channel_multiple: int
    dense_ms: float
    """The unexpanded network's median."""
    block: int
    """Widths are rounded up to multiples of this."""
    constant_ms: float
    kinds: tuple[LayerKind, ...]
    error_median: float
    """Of the relative errors on the structures of ``tested``, which the fit has not seen."""
    error_p90: float
    fitted: tuple[Measured, ...]
    tested: tuple[Measured, ...]

    def summary(self) -> dict[str, Any]:
        """What a structure that was cut with it says of it."""
        values = self.model_dump(include={"runtime", "threads", "dense_ms", "error_median", "error_p90"})
        return {**values, "cpu": self.machine["cpu"]}

    def milliseconds(self, graph: ChannelGraph, widths: Mapping[str, int]) -> float:
        """The latency predicted for ``widths``; ``graph`` is that of the unexpanded network."""
        macs = kinds_macs(graph, widths, self.block).values()
        return self.constant_ms + sum(kind.ns_per_mac * n for kind, n in zip(self.kinds, macs, strict=True)) / 1e6


def fit(graph: ChannelGraph, measured: Sequence[Measured], dense_ms: float) -> dict[str, Any]:
    """``block``, ``constant_ms`` and ``kinds`` of a :class:`LatencyModel` from measured structures.

    The block is the one with the smallest error in a five-fold cross-validation.
    """
    times = np.array([sample.ratio for sample in measured]) * dense_ms
    tables = {block: _table(graph, measured, block) for block in BLOCKS}
    block = min(tables, key=lambda b: _cross_validated(tables[b], times))
    constant, *slopes = _solve(tables[block], times)
    names = [tuple(term.module for term in terms) for terms in _kinds(graph).values()]
    kinds = [LayerKind(layers=n, ns_per_mac=slope) for n, slope in zip(names, slopes, strict=True)]
    return {"block": block, "constant_ms": constant, "kinds": tuple(kinds)}


def kinds_macs(graph: ChannelGraph, widths: Mapping[str, int], block: int) -> dict[tuple[int, ...], float]:
    """MACs of every kind of layer with widths rounded up to multiples of ``block``."""
    return {kind: sum(_macs(term, widths, block) for term in terms) for kind, terms in _kinds(graph).items()}


def _kinds(graph: ChannelGraph) -> dict[tuple[int, ...], list[Term]]:
    """The layers by what they share: kernel and map size are in the coefficients; a grouped layer is no plain one."""
    kinds: dict[tuple[int, ...], list[Term]] = {}
    for term in graph.terms:
        if term.macs:
            kinds.setdefault((len(term.spans), term.macs, term.params, term.groups), []).append(term)
    return kinds


def _macs(term: Term, widths: Mapping[str, int], block: int) -> float:
    sides = [math.ceil(features(span, widths) / block) * block for span in term.spans]
    return term.macs * math.prod(sides) / term.groups


def _table(graph: ChannelGraph, measured: Sequence[Measured], block: int) -> np.ndarray:
    """Float64 [structures, 1 + kinds]: 1, and million MACs, so that coefficients are milliseconds and ns a MAC."""
    return np.array([[1, *(n / 1e6 for n in kinds_macs(graph, m.widths, block).values())] for m in measured])


def _solve(table: np.ndarray, times: np.ndarray) -> list[float]:
    solution, _ = nnls(table / times[:, None], np.ones(len(times)))
    return solution.tolist()


def _cross_validated(table: np.ndarray, times: np.ndarray, folds: int = 5) -> float:
    """Mean relative error of rows that the fit has not seen."""
    fold = np.arange(len(times)) % folds
    errors = [
        np.abs(table[fold == k] @ _solve(table[fold != k], times[fold != k]) / times[fold == k] - 1)
        for k in range(folds)
    ]
    return float(np.concatenate(errors).mean())
