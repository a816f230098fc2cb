"""The report's figures of latency."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pfs_core.latency.results import Measurement
from pfs_core.report.figures import COLOURS
from pfs_core.report.network_row import NetworkRow
from pfs_core.report.results import Results

_LINES = {"dense": "-", "expanded": ":", "uniform": "--", "pruned": "-"}


def milliseconds(batch: int) -> str:
    """The unit of latencies, which are those of a batch.

    >>> milliseconds(1), milliseconds(8)
    ('milliseconds per image', 'milliseconds per batch of 8')
    """
    return "milliseconds per image" if batch == 1 else f"milliseconds per batch of {batch}"


def latency(ax: Axes, results: Results, measurement: Measurement) -> str:
    """Distribution of the latency samples of one measurement, up to a little more than the slowest network's p90."""
    samples = results.samples(measurement)
    last = 1.15 * max(float(np.quantile(values, 0.9)) for values in samples.values())
    bins = np.linspace(min(float(values.min()) for values in samples.values()), last, 81).tolist()
    for name, values in samples.items():
        colour, line = COLOURS[name], _LINES[name]
        ax.hist(values, bins=bins, histtype="step", linewidth=1.4, color=colour, linestyle=line, label=name)
    ax.set_xlabel(milliseconds(measurement.batch))
    ax.xaxis.set_major_locator(MaxNLocator(5))  # 0.0475 is long
    ax.set_ylabel("rounds")
    ax.legend()
    parts = [f"{name} {s.p50_ms:.3f} and {s.p90_ms:.3f} ms" for name, s in measurement.models.items()]
    beyond = np.concatenate(list(samples.values())) > last
    return f"Median and 90% quantile: {', '.join(parts)}. Of all rounds {beyond.mean():.1%} took longer than is shown."


def accuracy_and_latency(ax: Axes, results: Results) -> str:
    """Test accuracy against median latency, with the intervals of both."""
    words = []
    for row in _trained_and_measured(results):
        accuracy, median = 100 * (row.test_accuracy or 0.0), row.p50_ms or 0.0
        (low, high), (fast, slow) = row.test_accuracy_interval or (0.0, 1.0), row.p50_interval_ms or (0.0, 0.0)
        ax.errorbar(
            median,
            accuracy,
            xerr=[[max(median - fast, 0)], [max(slow - median, 0)]],
            yerr=[[accuracy - 100 * low], [100 * high - accuracy]],
            fmt="o",
            capsize=3,
            color=COLOURS[row.network],
            label=row.network,
        )
        words.append(f"{row.network} {accuracy:.1f}% at {median:.3f} ms")
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{milliseconds(results.quoted.batch)}, median")
    ax.set_ylabel("test accuracy, %")
    ax.legend()
    return f"Test accuracy against latency: {'; '.join(words)}."


def _trained_and_measured(results: Results) -> list[NetworkRow]:
    return [row for row in results.table() if row.test_accuracy is not None and row.p50_ms]
