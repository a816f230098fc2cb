"""The figure of a comparison: test accuracy against every cost, and the networks that no other beats."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from pfs_core.latency.results import Interval
from pfs_core.rendering.drawing import STYLE, svg_text
from pfs_core.report.comparison_rows import ComparisonRow, pareto_front
from pfs_core.report.figures import COLOURS
from pfs_core.report.latency_figures import milliseconds

_MARKERS = "osD^v<>P*Xph"
"""With the ten colours they tell sixty networks apart, where labels beside the points would cover each other."""


def drawing(rows: Sequence[ComparisonRow], batch: int) -> str:
    """The figure as SVG; latencies are those of a batch of so many images."""
    costs = _costs(batch)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6 + 0.22 * math.ceil(len(rows) / 4)), layout="constrained")
        axes = figure.subplots(1, len(costs), sharey=True)
        for ax, (cost, label) in zip(axes, costs.items(), strict=True):
            _scatter(ax, rows, cost, label)
        axes[0].set_ylabel("test accuracy [95%]")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        return svg_text(figure)


def words(rows: Sequence[ComparisonRow], batch: int) -> str:
    """What the figure shows: every network's figures, and who is on which front."""
    networks = [
        f"{row.label} {row.network.test_accuracy:.1%} at {row.network.macs:,} MACs, {row.network.params:,} "
        f"parameters, {row.network.p50_ms:.3f} ms"
        for row in rows
    ]
    fronts = [
        f"{label}: {', '.join(row.label for row in pareto_front(rows, cost))}" for cost, label in _costs(batch).items()
    ]
    return f"Test accuracy: {'; '.join(networks)}. On the front by {'; by '.join(fronts)}."


def _costs(batch: int) -> dict[str, str]:
    """What each panel is drawn against, in words by its name in a row."""
    return {"macs": "MACs", "params": "parameters", "p50_ms": f"{milliseconds(batch)}, median"}


def _scatter(ax: Axes, rows: Sequence[ComparisonRow], cost: str, label: str) -> None:
    best = sorted(pareto_front(rows, cost), key=lambda row: getattr(row.network, cost))
    for number, row in enumerate(rows):
        place, value = getattr(row.network, cost), row.network.test_accuracy or 0.0
        ax.errorbar(
            place,
            value,
            xerr=_away(place, row.network.p50_interval_ms) if cost == "p50_ms" else None,
            yerr=_away(value, row.network.test_accuracy_interval),
            fmt=_MARKERS[number % len(_MARKERS)],
            fillstyle="full" if row in best else "none",
            color=COLOURS["dense"] if row.dense else f"C{number % 10}",
            capsize=3,
            label=row.label,
        )
    places, values = [getattr(row.network, cost) for row in best], [row.network.test_accuracy or 0.0 for row in best]
    ax.plot(places, values, color="#999999", lw=1)
    ax.set_xlabel(label)
    ax.set_xlim(0, 1.15 * max(getattr(row.network, cost) for row in rows))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    if cost != "p50_ms":
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def _away(value: float, interval: Interval | None) -> list[list[float]] | None:
    """How far an interval reaches below and above a value that is in it."""
    if interval is None:
        return None
    low, high = interval
    return [[max(value - low, 0)], [max(high - value, 0)]]
