"""One row of the table that a report is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from pfs_core.latency.results import Interval


@dataclass(frozen=True)
class NetworkRow:
    """What is known of a network; None where it was not trained or not measured.

    Attributes:
        network: ``dense``, ``uniform`` or ``pruned``.
        macs: multiply-adds per image.
        params: number of parameters.
        test_accuracy: in [0, 1].
        test_accuracy_interval: 95%.
        epochs: that it was trained for.
        p50_ms: median latency of a batch in the quoted measurement.
        p50_interval_ms: 95%.
        latency_ratio: to the dense network; None for itself.
        latency_ratio_interval: 95%.
        latency_verdict: what the interval of the ratio allows to say.
        latency_flags: what is wrong with the samples.
        file_mib: size of its weights.
        peak_memory_mib: memory of a process while it answers, libraries aside.
    """

    network: str
    macs: int
    params: int
    test_accuracy: float | None = None
    test_accuracy_interval: Interval | None = None
    epochs: int | None = None
    p50_ms: float | None = None
    p50_interval_ms: Interval | None = None
    latency_ratio: float | None = None
    latency_ratio_interval: Interval | None = None
    latency_verdict: str | None = None
    latency_flags: Sequence[str] = ()
    file_mib: float | None = None
    peak_memory_mib: float | None = None
