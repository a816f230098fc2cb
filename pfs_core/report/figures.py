"""The report's figures, as SVG text that needs no network, no script and no font file, and as words."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pfs_core.rendering.drawing import INK, STYLE, svg_text
from pfs_core.report.results import NETWORKS, History, Results

COLOURS = {"dense": "#808080", "expanded": "#9a79c6", "uniform": "#d1810f", "pruned": "#2f7fc4"}
COUNTED = 12
"""Up to so many classes a confusion matrix has room for its numbers."""
NAMED, WORST = 30, 20
"""Up to so many classes it has room for their names; of more it shows this many, those most often mistaken."""

_LINES = {"dense": "-", "expanded": ":", "uniform": "--", "pruned": "-"}
_FIXED, _BEHIND = "#9db4c8", "#80808040"
SHARES = LinearSegmentedColormap.from_list("shares", ["#1f77d000", "#1f77d0bf"])
"""Over the page's own colour, so that its letters can be read on every share, on light and on dark paper."""


def draw(plot: Callable[[Axes, Results], str], results: Results, size: tuple[float, float]) -> tuple[str, str]:
    """One figure as an ``<svg>`` element, and what it shows in words; the same results give the same text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        words = plot(figure.subplots(), results)
        return svg_text(figure), words


def channels(ax: Axes, results: Results) -> str:
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
    ax.bar(x, expanded, width=0.8, color=_BEHIND, label="expanded, searched over")
    ax.bar(x, kept, width=0.8, color=colours)
    ax.hlines(dense, x - 0.42, x + 0.42, color=INK, linewidth=1.4, label="dense")
    ax.set_xticks(x, [group.name for group in groups], rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("channels")
    ax.bar(0, 0, color=COLOURS["pruned"], label="kept")
    if len(prunable) < len(groups):
        ax.bar(0, 0, color=_FIXED, label="kept, not pruned (residual stream)")
    ax.legend(loc="upper left")
    parts = [f"{g.name} {d}, {e}, {k}" for g, d, e, k in zip(groups, dense, expanded, kept, strict=True)]
    return "Channels of every group, dense, expanded and kept: " + "; ".join(parts) + "."


def gate_histogram(ax: Axes, results: Results) -> str:
    """How far the gates are polarised, and where the cut is."""
    values = torch.cat(list(results.gates.values())).numpy()
    threshold = results.structures["pruned"].chosen_by["threshold"]
    ax.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=COLOURS["pruned"])
    ax.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"cut at {threshold:.3f}")
    ax.set_xlabel("gate")
    ax.set_ylabel("channels")
    ax.legend()
    closed, opened = (values < 0.05).mean(), (values > 0.95).mean()
    return (
        f"Of {len(values):,} gates {closed:.0%} are below 0.05 and {opened:.0%} above 0.95; those from "
        f"{threshold:.3f} up are kept."
    )


def polarisation(ax: Axes, results: Results) -> str:
    """Which share of the gates is nearly closed, between, and nearly open over the search."""
    unit = _unit(results)
    rows = [row for row in results.search_history if "closed" in row]
    places = [row[unit] for row in rows]
    closed = np.array([row["closed"] for row in rows])
    opened = np.array([row["open"] for row in rows])
    parts = (closed, 1 - closed - opened, opened)
    labels = ("below 0.05", "between", "above 0.95")
    ax.stackplot(places, *parts, labels=labels, colors=[_BEHIND, _FIXED, COLOURS["pruned"]])
    _along(ax, f"{unit} of the search")
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of the gates")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    return (
        f"Gates below 0.05 went from {closed[0]:.0%} to {closed[-1]:.0%} of all, "
        f"above 0.95 from {opened[0]:.0%} to {opened[-1]:.0%}."
    )


def search_curves(ax: Axes, results: Results) -> str:
    """Mean gate, non-zero fraction and validation accuracy over the search."""
    unit = _unit(results)
    places = [row[unit] for row in results.search_history]
    for key, label in (("mean_gate", "mean gate"), ("nonzero", "non-zero gates"), ("val_accuracy", "val. accuracy")):
        ax.plot(places, [row[key] for row in results.search_history], marker=".", label=label)
    ax.axhline(results.search["target_ratio"], color="#808080", linewidth=1, linestyle=":", label="target ratio")
    ax.axvline(results.search[f"kept_{unit}"], color=INK, linewidth=1, linestyle="--", label="kept")
    _along(ax, f"{unit} of the search")
    ax.set_ylim(0, 1.02)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    first, last = results.search_history[0], results.search_history[-1]
    return (
        f"Over the search the mean gate goes from {first['mean_gate']:.2f} to {last['mean_gate']:.2f}, the non-zero "
        f"gates to {last['nonzero']:.0%} (target {results.search['target_ratio']:.0%}); those of {unit} "
        f"{results.search[f'kept_{unit}']} are kept."
    )


def search_losses(ax: Axes, results: Results) -> str:
    """The loss over the search, and the cross-entropy in it where it is not all of it."""
    unit, rows, words = _unit(results), results.search_history, []
    for key, label, colour in (("loss", "loss", COLOURS["pruned"]), ("cross_entropy", "cross-entropy", INK)):
        if key in rows[0]:
            ax.plot([row[unit] for row in rows], [row[key] for row in rows], marker=".", color=colour, label=label)
            words.append(f"{label} from {rows[0][key]:.3f} to {rows[-1][key]:.3f}")
    _along(ax, f"{unit} of the search")
    ax.legend()
    return f"Over the search: {', '.join(words)}."


def pretraining(ax: Axes, results: Results) -> str:
    """Validation accuracy over the training that goes before a search."""
    return _accuracy_over(ax, results.pretraining, "epoch of the training before the search")


def sparse_training_curve(ax: Axes, results: Results) -> str:
    """Validation accuracy over the epochs of Network Slimming's training."""
    return _accuracy_over(ax, results.search_history, "epoch of the training with the penalty")


def _accuracy_over(ax: Axes, rows: History, label: str) -> str:
    ax.plot([row["epoch"] for row in rows], [row["val_accuracy"] for row in rows], marker=".", color=COLOURS["pruned"])
    _along(ax, label)
    ax.set_ylabel("validation accuracy")
    first, last = rows[0]["val_accuracy"], rows[-1]["val_accuracy"]
    return f"Over {len(rows)} epochs the validation accuracy goes from {first:.1%} to {last:.1%}."


def rewards(ax: Axes, results: Results) -> str:
    """What AMC's agent earned in each episode, and the best until then."""
    rows = results.search_history
    places = [row["episode"] for row in rows]
    ax.plot(places, [row["reward"] for row in rows], linestyle="", marker=".", color=_FIXED, label="an episode")
    ax.plot(places, [row["best_reward"] for row in rows], color=COLOURS["pruned"], label="best so far")
    warm = results.search["recipe"]["warmup_episodes"]
    ax.axvline(warm + 0.5, color=INK, linewidth=1, linestyle="--", label="end of warm-up")
    ax.set_xlabel("episode")
    ax.set_ylabel("accuracy of the cut network")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    at_random = rows[min(warm, len(rows)) - 1]["best_reward"]
    return (
        f"The best of {warm} random episodes keeps {at_random:.1%} accuracy without training, "
        f"the best of all {len(rows)} keeps {rows[-1]['best_reward']:.1%}."
    )


SEARCH_CURVES: dict[str, tuple[str, Callable[[Axes, Results], str]]] = {
    "mean_gate": ("The search", search_curves),
    "train_accuracy": ("The search", sparse_training_curve),
    "reward": ("The search", rewards),
    "loss": ("The loss of the search", search_losses),
}
"""What is drawn of a search, and its caption, by a column that its history has."""


def training_curves(ax: Axes, results: Results) -> str:
    """Accuracy over the retraining: on validation rows where they were held out, else on training rows."""
    words = []
    for name in NETWORKS:
        history = results.histories.get(name)
        if history:
            key = "val_accuracy" if "val_accuracy" in history[0] else "train_accuracy"
            points = [(row["epoch"], row[key]) for row in history if row[key] is not None]
            ax.plot(*zip(*points, strict=True), color=COLOURS[name], marker=".", label=name)
            label = {"val_accuracy": "validation accuracy", "train_accuracy": "training accuracy"}[key]
            ax.set_ylabel(label)
            words.append(f"{name} ends at {points[-1][1]:.1%} {label} after {points[-1][0]} epochs")
    _along(ax, "epoch of the retraining")
    ax.legend()
    return "; ".join(words).capitalize() + "."


def training_losses(ax: Axes, results: Results) -> str:
    """Training loss over the retraining."""
    words = []
    for name in NETWORKS:
        if history := results.histories.get(name):
            losses = [row["loss"] for row in history]
            ax.plot([row["epoch"] for row in history], losses, color=COLOURS[name], marker=".", label=name)
            words.append(f"{name} from {losses[0]:.3f} to {losses[-1]:.3f}")
    _along(ax, "epoch of the retraining")
    ax.set_ylabel("training loss")
    ax.set_ylim(bottom=0)
    ax.legend()
    return f"Training loss: {'; '.join(words)}."


def latency(ax: Axes, results: Results, measurement: Mapping[str, Any]) -> str:
    """Distribution of the latency samples of one measurement, up to a little more than the slowest network's p90."""
    samples = results.samples(measurement)
    last = 1.15 * max(float(np.quantile(values, 0.9)) for values in samples.values())
    bins = np.linspace(min(float(values.min()) for values in samples.values()), last, 81).tolist()
    for name, values in samples.items():
        colour, line = COLOURS[name], _LINES[name]
        ax.hist(values, bins=bins, histtype="step", linewidth=1.4, color=colour, linestyle=line, label=name)
    ax.set_xlabel("milliseconds a batch" if measurement["batch"] > 1 else "milliseconds an image")
    ax.xaxis.set_major_locator(MaxNLocator(5))  # 0.0475 is long
    ax.set_ylabel("rounds")
    ax.legend()
    parts = [f"{name} {s['p50_ms']:.3f} and {s['p90_ms']:.3f} ms" for name, s in measurement["models"].items()]
    beyond = np.concatenate(list(samples.values())) > last
    return f"Median and 90% quantile: {', '.join(parts)}. Of all rounds {beyond.mean():.1%} took longer than is shown."


def confusion(ax: Axes, results: Results) -> str:
    """Test images of the pruned network by true and predicted class, as shares of the true class."""
    metrics = results.metrics["pruned"]
    counts, names = np.array(metrics["confusion_matrix"]), metrics["class_names"]
    wrong = counts - np.diag(np.diag(counts))
    mistaken = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    shown = np.arange(len(names)) if len(names) <= NAMED else np.sort(mistaken[:WORST])
    part = f" The drawing has {len(shown)} of {len(names)} classes, those most often mistaken among them."
    some = part if len(shown) < len(names) else ""
    _matrix(ax, counts[np.ix_(shown, shown)], counts.sum(1)[shown], [names[i] for i in shown])
    if not wrong.any():
        return f"All {counts.sum():,} test images are taken for what they are.{some}"
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    of = f"{wrong[row, column]} of {counts[row].sum()} images of {names[row]}"
    return f"{wrong.sum():,} of {counts.sum():,} test images are mistaken, most often {of} for {names[column]}.{some}"


def _matrix(ax: Axes, counts: np.ndarray, images: np.ndarray, names: list[str]) -> None:
    """Images [true class, predicted class] as shares of ``images`` [true class]."""
    shares = counts / np.maximum(images, 1)[:, None]
    ax.grid(visible=False)
    ax.pcolormesh(shares, cmap=SHARES, norm=PowerNorm(0.5, 0, 1), edgecolors="none")  # rare mistakes are seen
    ax.invert_yaxis()
    places = np.arange(len(names)) + 0.5
    ax.set_xticks(places, names, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(places, names, fontsize=7)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true class")
    if len(names) <= COUNTED:
        for row, column in np.argwhere(counts > 0):
            ax.text(column + 0.5, row + 0.5, counts[row, column], ha="center", va="center", fontsize=7)


def _along(ax: Axes, label: str) -> None:
    """Name the axis of epochs or steps; a tick is a whole one."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _unit(results: Results) -> str:
    return "step" if results.search["recipe"].get("evaluate_every") else "epoch"
