"""The rows of a comparison: one network of one run, or the mean of several seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from pfs_core.latency.results import Interval
from pfs_core.latency.statistics import verdict
from pfs_core.report.network_row import NetworkRow
from pfs_core.report.results import Results


@dataclass(frozen=True)
class Effort:
    """What a network took; None where it is not known or there was no such step.

    Attributes:
        pretrain_seconds: of the training before the search.
        search_seconds: of the search.
        extract_seconds: of the extraction.
        retrain_seconds: of the training of the result.
        search_device_seconds: of the search and the training before it, on GPUs or processors, as the next two.
        search_forward_images: that went through a network.
        search_backward_images: of them, those with gradients.
    """

    pretrain_seconds: float | None = None
    search_seconds: float | None = None
    extract_seconds: float | None = None
    retrain_seconds: float | None = None
    search_device_seconds: float | None = None
    search_forward_images: float | None = None
    search_backward_images: float | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """A network beside others.

    Attributes:
        name: what its run is called beside the others; empty for the dense network, unless there are several.
        budget: that it was cut to; empty for the dense network, like ``method``.
        method: that chose it.
        effort: what it took.
        accuracy_drop: test accuracy that it lost to the dense network of its run.
        network: its figures, or their means over the seeds.
        seeds: how many there are.
        on_front: whether no other row is as accurate for fewer MACs.
    """

    name: str
    budget: str
    method: str
    effort: Effort
    accuracy_drop: float | None
    network: NetworkRow
    seeds: int = 1
    on_front: bool = False

    @property
    def label(self) -> str:
        """What the row is called."""
        return self.name or "dense"

    @property
    def dense(self) -> bool:
        """Whether it is the network that the others were cut from."""
        return self.network.network == "dense"

    def flat(self) -> dict[str, Any]:
        """All fields by one name each, as in ``comparison.json``."""
        values = {"name": self.name, "budget": self.budget, "method": self.method, **asdict(self.effort)}
        values |= {"accuracy_drop": self.accuracy_drop, **asdict(self.network)}
        return {**values, "seeds": self.seeds, "on_front": self.on_front}


def pruned_row(results: Results, name: str) -> ComparisonRow:
    """The pruned network of a run."""
    stages, seconds = results.search.cost.values(), results.search.stage_seconds
    effort = Effort(
        pretrain_seconds=seconds.get("pretrain"),
        search_seconds=seconds.get("search"),
        extract_seconds=results.extract_seconds,
        retrain_seconds=results.pruned.seconds,
    )
    if stages:
        effort = replace(
            effort,
            search_device_seconds=sum(stage.device_seconds for stage in stages),
            search_forward_images=sum(stage.forward_images for stage in stages),
            search_backward_images=sum(stage.backward_images for stage in stages),
        )
    budget, method = str(results.structure.target_budget), results.search.method
    return ComparisonRow(name, budget, method, effort, results.accuracy_drop, results.row("pruned"))


def uniform_row(results: Results, name: str) -> ComparisonRow:
    """The network with uniform widths of a run, which was trained."""
    trained = results.metrics["uniform"]
    drop = results.dense.test_accuracy - trained.test_accuracy if results.dense else None
    budget = str(results.structure.target_budget)
    effort = Effort(retrain_seconds=trained.seconds)
    return ComparisonRow(name, budget, "uniform", effort, drop, results.row("uniform"))


def dense_row(results: Results, name: str) -> ComparisonRow:
    """The dense network of a run, which was trained."""
    assert results.dense is not None
    return ComparisonRow(name, "", "", Effort(retrain_seconds=results.dense.seconds), None, results.row("dense"))


def pooled(rows: Sequence[ComparisonRow]) -> ComparisonRow:
    """One row of several seeds: means, with intervals.

    An interval is Student's 95% one over the seeds; where that is narrower than the mean of the seeds' own (the same
    images test all of them, and one machine measures them), it reaches as far as that does.
    """
    first = rows[0]
    if len(rows) == 1:
        return first
    networks, efforts = [row.network for row in rows], [row.effort for row in rows]
    ratio = _interval([n.latency_ratio for n in networks], [n.latency_ratio_interval for n in networks])
    network = replace(
        first.network,
        **{key: _mean([getattr(network, key) for network in networks]) for key in _MEANS},
        test_accuracy_interval=_interval(
            [n.test_accuracy for n in networks], [n.test_accuracy_interval for n in networks], top=1.0
        ),
        p50_interval_ms=_interval([n.p50_ms for n in networks], [n.p50_interval_ms for n in networks]),
        latency_ratio_interval=ratio,
        latency_verdict=verdict(*ratio) if ratio else None,
    )
    return replace(
        first,
        effort=Effort(**{key: _mean([getattr(effort, key) for effort in efforts]) for key in asdict(first.effort)}),
        accuracy_drop=_mean([row.accuracy_drop for row in rows]),
        network=network,
        seeds=len(rows),
    )


_MEANS = ("macs", "params", "test_accuracy", "epochs", "p50_ms", "latency_ratio", "file_mib", "peak_memory_mib")


def _mean(values: Sequence[float | None]) -> Any:
    """The mean, whole where the values are; None where one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    mean = float(np.mean(known))
    return round(mean) if isinstance(known[0], int) else mean


def _interval(
    values: Sequence[float | None], intervals: Sequence[Interval | None], top: float = np.inf
) -> Interval | None:
    """The interval of the mean of ``values``, between 0 and ``top``; None where one is missing."""
    known = [value for value in values if value is not None]
    own = [interval for interval in intervals if interval is not None]
    if len(known) < len(values) or len(own) < len(values):
        return None
    mean = float(np.mean(known))
    reach = float(student.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / np.sqrt(len(known)))
    low, high = np.mean(own, axis=0).tolist()
    return max(min(mean - reach, low), 0.0), min(max(mean + reach, high), top)


def pareto_front(rows: Sequence[ComparisonRow], cost: str = "macs") -> list[ComparisonRow]:
    """Those rows that no other beats: none is as accurate for less, or more accurate for as much, of ``cost``."""
    places = [(row.network.test_accuracy or 0.0, getattr(row.network, cost)) for row in rows]
    return [
        row
        for row, (accuracy, price) in zip(rows, places, strict=True)
        if not any(
            other_accuracy >= accuracy and other <= price and (other_accuracy, other) != (accuracy, price)
            for other_accuracy, other in places
        )
    ]
