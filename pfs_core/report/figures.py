"""The report's figures, as SVG text that needs no network, no script and no font file."""

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pfs_core.drawing import STYLE, svg_text
from pfs_core.report.results import NETWORKS, Results

COLOURS = {"dense": "#7a7a7a", "uniform": "#d1810f", "pruned": "#1f6fb4"}
_FIXED = "#b9c9d8"


def draw(plot: Callable[[Axes, Results], None], results: Results, size: tuple[float, float]) -> str:
    """One figure as an ``<svg>`` element; the same results give the same text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.subplots(), results)
        return svg_text(figure)


def channels(ax: Axes, results: Results) -> None:
    """Width of every resizable channel group: dense, expanded, kept."""
    graph = results.structures["pruned"].graph()
    groups = [group for group in graph.groups if group.resizable]
    prunable = set(results.gates)
    dense = [group.width for group in groups]
    widths = graph.expanded(results.spec.expand, results.spec.expand_stream)
    expanded = [widths[group.name] for group in groups]
    kept = [results.structures["pruned"].widths[group.name] for group in groups]
    x = np.arange(len(groups))
    colours = [COLOURS["pruned"] if group.name in prunable else _FIXED for group in groups]
    ax.bar(x, expanded, width=0.8, color="#ededed", label="expanded, searched over")
    ax.bar(x, kept, width=0.8, color=colours)
    ax.hlines(dense, x - 0.42, x + 0.42, color="#222222", linewidth=1.4, label="dense")
    ax.set_xticks(x, [group.name for group in groups], rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("channels")
    ax.bar(0, 0, color=COLOURS["pruned"], label="kept")
    if len(prunable) < len(groups):
        ax.bar(0, 0, color=_FIXED, label="kept, not pruned (residual stream)")
    ax.legend(loc="upper left")


def gate_histogram(ax: Axes, results: Results) -> None:
    """How far the gates are polarised, and where the cut is."""
    values = torch.cat(list(results.gates.values())).numpy()
    threshold = results.structures["pruned"].chosen_by["threshold"]
    ax.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=COLOURS["pruned"])
    ax.axvline(threshold, color="#222222", linewidth=1.2, linestyle="--", label=f"cut at {threshold:.3f}")
    ax.set_xlabel("gate")
    ax.set_ylabel("channels")
    ax.legend()


def search_curves(ax: Axes, results: Results) -> None:
    """Mean gate, non-zero fraction and validation accuracy over the search."""
    unit = "step" if results.search["recipe"]["evaluate_every"] else "epoch"
    places = [row[unit] for row in results.search_history]
    for key, label in (("mean_gate", "mean gate"), ("nonzero", "non-zero gates"), ("val_accuracy", "val. accuracy")):
        ax.plot(places, [row[key] for row in results.search_history], marker=".", label=label)
    ax.axhline(results.search["target_ratio"], color="#999999", linewidth=1, linestyle=":", label="target ratio")
    ax.axvline(results.search[f"kept_{unit}"], color="#222222", linewidth=1, linestyle="--", label="kept")
    ax.set_xlabel(f"{unit} of the search")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_ylim(0, 1.02)
    ax.legend()


def training_curves(ax: Axes, results: Results) -> None:
    """Accuracy over the retraining: on validation rows where they were held out, else on training rows."""
    for name in NETWORKS:
        history = results.histories.get(name)
        if history:
            key = "val_accuracy" if "val_accuracy" in history[0] else "train_accuracy"
            points = [(row["epoch"], row[key]) for row in history if row[key] is not None]
            ax.plot(*zip(*points, strict=True), color=COLOURS[name], marker=".", label=name)
            ax.set_ylabel({"val_accuracy": "validation accuracy", "train_accuracy": "training accuracy"}[key])
    ax.set_xlabel("epoch of the retraining")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.legend()


def latency(ax: Axes, results: Results) -> None:
    """Distribution of the latency samples, without their top 1%."""
    for name in NETWORKS:
        if name in results.samples_ms:
            values = results.samples_ms[name]
            values = values[values <= np.quantile(values, 0.99)]
            ax.hist(values, bins=60, histtype="step", linewidth=1.4, color=COLOURS[name], label=name)
    ax.set_xlabel("milliseconds an image")
    ax.set_ylabel("rounds")
    ax.legend()
