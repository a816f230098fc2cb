"""The report's figures, as SVG text that needs no network, no script and no font file, and as words."""

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pfs_core.methods.amc.config import AmcConfig
from pfs_core.rendering.drawing import INK, STYLE, shortened, svg_text
from pfs_core.report.results import NETWORKS, Results
from pfs_core.structure.budget_cut import fills

COLOURS = {"dense": "#808080", "expanded": "#9a79c6", "uniform": "#d1810f", "pruned": "#2f7fc4"}
COUNTED = 12
"""Up to so many classes a confusion matrix has room for its numbers."""
NAMED, WORST = 30, 20
"""Up to so many classes it has room for their names; of more it shows this many, those most often mistaken."""

_PRUNED = COLOURS["pruned"]
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
    graph = results.structure.graph()
    groups = [group for group in graph.groups if group.resizable]
    fixed = [group for group in groups if group.name not in results.gates]
    dense = [group.width for group in groups]
    widths = graph.expanded(results.spec.expand, results.spec.expand_stream)
    expanded = [widths[group.name] for group in groups]
    kept = [results.structure.widths[group.name] for group in groups]
    x = np.arange(len(groups))
    colours = [_FIXED if group in fixed else _PRUNED for group in groups]
    ax.bar(x, expanded, width=0.8, color=_BEHIND, label="expanded, searched over")
    ax.bar(x, kept, width=0.8, color=colours)
    ax.hlines(dense, x - 0.42, x + 0.42, color=INK, linewidth=1.4, label="dense")
    ax.set_xticks(x, [group.name for group in groups], rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("channels")
    ax.bar(0, 0, color=_PRUNED, label="kept")
    if fixed:
        streams = " (residual stream)" if all(group.stream for group in fixed) else ""
        ax.bar(0, 0, color=_FIXED, label=f"kept, not pruned{streams}")
    ax.legend(loc="upper left")
    parts = [f"{g.name} {d}, {e}, {k}" for g, d, e, k in zip(groups, dense, expanded, kept, strict=True)]
    return "Channels of every group, dense, expanded and kept: " + "; ".join(parts) + "."


def block_use(ax: Axes, results: Results) -> str:
    """Share of the channels that a runtime computes for a group in whole blocks, and that are there to be used."""
    block = results.structure.block
    groups = [group for group in results.structure.graph().groups if group.resizable]
    widths = np.array([results.structure.widths[group.name] for group in groups])
    used = widths / np.maximum(np.ceil(widths / block) * block, 1)
    x = np.arange(len(groups))
    ax.bar(x, np.minimum(widths, 1), width=0.8, color=_BEHIND, label=f"computed, in blocks of {block}")
    ax.bar(x, used, width=0.8, color=_PRUNED, label="used")
    ax.set_xticks(x, [group.name for group in groups], rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("share of the channels")
    ax.set_ylim(0, 1.3)  # the legend is above the bars
    ax.set_yticks(np.linspace(0, 1, 6).tolist())
    ax.legend(loc="upper left", ncols=2)
    parts = [f"{group.name} {share:.0%}" for group, share in zip(groups, used, strict=True) if 0 < share < 1]
    said = f"Of whole blocks of {block} channels, all are used" + (f" but in {'; '.join(parts)}." if parts else ".")
    left_out = [group.name for group, width in zip(groups, widths, strict=True) if not width]
    return said + (f" Left out with their residual branches: {', '.join(left_out)}." if left_out else "")


def gate_histogram(ax: Axes, results: Results) -> str:
    """How far the gates are polarised, and where the cut is."""
    values = torch.cat(list(results.gates.values())).numpy()
    threshold = results.structure.chosen_by["threshold"]
    ax.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=_PRUNED)
    ax.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"cut at {threshold:.3f}")
    ax.set_xlabel("gate")
    ax.set_ylabel("channels")
    ax.legend()
    structure = results.structure
    closed, opened, block = (values < 0.05).mean(), (values > 0.95).mean(), structure.block
    rounded = f", and widths are then rounded to blocks of {block}" if block > 1 else ""
    rounded += "; what that left went to smaller gates" if fills(structure.budget.metric, block) else ""
    return (
        f"Of {len(values):,} gates {closed:.0%} are below 0.05 and {opened:.0%} above 0.95; the cut is at "
        f"{threshold:.3f}{rounded}."
    )


def polarisation(ax: Axes, results: Results) -> str:
    """Which share of the gates is nearly closed, between, and nearly open over the search."""
    unit = results.search.config.history_axis
    history = results.search_history.dropna(subset=["closed"])
    closed, opened = history.closed.to_numpy(), history.open.to_numpy()
    parts = (closed, 1 - closed - opened, opened)
    labels = ("below 0.05", "between", "above 0.95")
    ax.stackplot(history[unit], *parts, labels=labels, colors=[_BEHIND, _FIXED, _PRUNED])
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
    info, history = results.search, results.search_history
    unit = info.config.history_axis
    one, each = (info.kept_step, info.kept_steps) if unit == "step" else (info.kept_epoch, info.kept_epochs)
    kept = [place for place in each or (one,) if place is not None]
    assert info.target_ratio is not None
    assert kept
    for column, label in (("mean_gate", "mean gate"), ("nonzero", "non-zero gates"), ("val_accuracy", "val. accuracy")):
        ax.plot(history[unit], history[column], marker=".", label=label)
    ax.axhline(info.target_ratio, color="#808080", linewidth=1, linestyle=":", label="target ratio")
    for place in kept:
        ax.axvline(place, color=INK, linewidth=1, linestyle="--", label="kept" if place == kept[0] else None)
    _along(ax, f"{unit} of the search")
    ax.set_ylim(0, 1.02)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    first, last = history.iloc[0], history.iloc[-1]
    return (
        f"Over the search the mean gate goes from {first.mean_gate:.2f} to {last.mean_gate:.2f}, the non-zero "
        f"gates to {last.nonzero:.0%} (target {info.target_ratio:.0%}); those of {unit} "
        f"{', '.join(map(str, kept))} are kept."
    )


def search_losses(ax: Axes, results: Results) -> str:
    """The loss over the search, and the cross-entropy in it where it is not all of it."""
    history, words = results.search_history, []
    unit = results.search.config.history_axis
    for column, label, colour in (("loss", "loss", _PRUNED), ("cross_entropy", "cross-entropy", INK)):
        if column in history:
            values = history[column]
            ax.plot(history[unit], values, marker=".", color=colour, label=label)
            words.append(f"{label} from {values.iloc[0]:.3f} to {values.iloc[-1]:.3f}")
    _along(ax, f"{unit} of the search")
    ax.legend()
    return f"Over the search: {', '.join(words)}."


def pretraining(ax: Axes, results: Results) -> str:
    """Validation accuracy over the training that goes before a search."""
    return _accuracy_over(ax, results.pretraining, "epoch of the training before the search")


def sparse_training_curve(ax: Axes, results: Results) -> str:
    """Validation accuracy over the epochs of Network Slimming's training."""
    return _accuracy_over(ax, results.search_history, "epoch of the training with the penalty")


def _accuracy_over(ax: Axes, history: pd.DataFrame, label: str) -> str:
    accuracy = history.val_accuracy
    ax.plot(history.epoch, accuracy, marker=".", color=_PRUNED)
    _along(ax, label)
    ax.set_ylabel("validation accuracy")
    first, last = accuracy.iloc[0], accuracy.iloc[-1]
    return f"Over {len(history)} epochs the validation accuracy goes from {first:.1%} to {last:.1%}."


def rewards(ax: Axes, results: Results) -> str:
    """What AMC's agent earned in each episode, and the best until then."""
    history, best = results.search_history, results.search_history.best_reward
    ax.plot(history.episode, history.reward, linestyle="", marker=".", color=_FIXED, label="an episode")
    ax.plot(history.episode, best, color=_PRUNED, label="best so far")
    warm = results.search.config_as(AmcConfig).warmup_episodes
    ax.axvline(warm + 0.5, color=INK, linewidth=1, linestyle="--", label="end of warm-up")
    ax.set_xlabel("episode")
    ax.set_ylabel("accuracy of the cut network")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    at_random = best.iloc[min(warm, len(best)) - 1]
    return (
        f"The best of {warm} random episodes keeps {at_random:.1%} accuracy without training, "
        f"the best of all {len(best)} keeps {best.iloc[-1]:.1%}."
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
    for name, history in _drawn_histories(results):
        validated = "val_accuracy" in history
        column, label = ("val_accuracy", "validation") if validated else ("train_accuracy", "training")
        known = history.dropna(subset=[column])
        ax.plot(known.epoch, known[column], color=COLOURS[name], marker=".", label=name)
        ax.set_ylabel(f"{label} accuracy")
        epochs, accuracy = known.epoch.iloc[-1], known[column].iloc[-1]
        words.append(f"{name} ends at {accuracy:.1%} {label} accuracy after {epochs} epochs")
    _along(ax, "epoch of the retraining")
    ax.legend()
    return "; ".join(words).capitalize() + "."


def training_losses(ax: Axes, results: Results) -> str:
    """Training loss over the retraining."""
    words = []
    for name, history in _drawn_histories(results):
        ax.plot(history.epoch, history.loss, color=COLOURS[name], marker=".", label=name)
        words.append(f"{name} from {history.loss.iloc[0]:.3f} to {history.loss.iloc[-1]:.3f}")
    _along(ax, "epoch of the retraining")
    ax.set_ylabel("training loss")
    ax.set_ylim(bottom=0)
    ax.legend()
    return f"Training loss: {'; '.join(words)}."


def _drawn_histories(results: Results) -> list[tuple[str, pd.DataFrame]]:
    """The trainings that have epochs, in the order of the table."""
    known = [(name, results.histories[name]) for name in NETWORKS if name in results.histories]
    return [(name, history) for name, history in known if len(history)]


def confusion(ax: Axes, results: Results) -> str:
    """Test images of the pruned network by true and predicted class, as shares of the true class."""
    counts, names = np.array(results.pruned.confusion_matrix), results.pruned.class_names
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
    places, shown = np.arange(len(names)) + 0.5, [shortened(name) for name in names]
    ax.set_xticks(places, shown, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(places, shown, fontsize=7)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true class")
    if len(names) <= COUNTED:
        for row, column in np.argwhere(counts > 0):
            ax.text(column + 0.5, row + 0.5, counts[row, column], ha="center", va="center", fontsize=7)


def _along(ax: Axes, label: str) -> None:
    """Name the axis of epochs or steps; a tick is a whole one."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
