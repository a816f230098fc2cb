"""A channel graph as a picture: one bar per group, as long as it is wide, and which group is computed from which."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Patch

from pfs_core.channels import ChannelGraph, ChannelGroup
from pfs_core.rendering.drawing import STYLE, render_page, svg_text
from pfs_core.storage.artifacts import check_parents

_COLOURS = {"prunable": "#1f6fb4", "residual stream": "#d1810f", "kept": "#9aa7b3"}


def write_picture(graph: ChannelGraph, title: str, path: Path) -> None:
    """Write the picture as PNG, or as a page with the members of every group, by the suffix of ``path``."""
    check_parents(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = _figure(graph)
        if path.suffix == ".png":
            figure.suptitle(title, x=0.02, ha="left")
            figure.savefig(path, dpi=110, facecolor="white")
            return
        svg = svg_text(figure)
    rows = [(group, state(group), graph.members(group.name)) for group in graph.groups]
    page = render_page(__package__, "graph.html", title=title, summary=graph.summary(), svg=svg, rows=rows)
    path.write_text(page, encoding="utf-8")


def state(group: ChannelGroup) -> str:
    """``prunable``, ``residual stream`` (left alone by the policy) or ``kept``."""
    if group.prunable:
        return "prunable"
    return "residual stream" if group.stream and group.resizable else "kept"


def _figure(graph: ChannelGraph) -> Figure:
    rows = len(graph.groups)
    figure = Figure(figsize=(10, 0.19 * rows + 1.3), layout="constrained")
    arcs, bars = figure.subplots(1, 2, sharey=True, width_ratios=(1, 5))
    _draw_bars(bars, graph)
    _draw_arcs(arcs, graph)
    arcs.set_ylim(rows - 0.4, -0.6)
    return figure


def _draw_bars(ax: Axes, graph: ChannelGraph) -> None:
    groups = graph.groups
    widest = max(group.width for group in groups)
    colours = [_COLOURS[state(group)] for group in groups]
    ax.barh(range(len(groups)), [group.width for group in groups], color=colours, height=0.72)
    for row, group in enumerate(groups):
        note = f"{group.width}" + (f", {group.per_gate} a gate" if group.per_gate > 1 else "")
        ax.text(group.width + 0.008 * widest, row, note, va="center", fontsize=7)
    ax.set_xlim(0, widest * 1.12)
    ax.set_yticks(range(len(groups)), [group.name for group in groups], fontsize=7)
    ax.tick_params(axis="y", labelleft=True, length=0)
    ax.set_xlabel("channels")
    used = {state(group) for group in groups}
    handles = [Patch(color=colour, label=name) for name, colour in _COLOURS.items() if name in used]
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def _draw_arcs(ax: Axes, graph: ChannelGraph) -> None:
    """An arc from every group to the groups computed from it."""
    row = {group.name: i for i, group in enumerate(graph.groups)}
    reads = {a.module: {row[s.group] for s in a.segments} for a in graph.axes if a.role == "reads"}
    writes = {a.module: row[a.segments[0].group] for a in graph.axes if a.role == "writes"}
    arcs = {(start, writes[module]) for module, starts in reads.items() for start in starts}
    for start, end in sorted(arcs):
        span = abs(end - start)
        ax.add_patch(
            Arc((0, (start + end) / 2), 2 * span**0.5, span, theta1=90, theta2=270, color="#777777", linewidth=0.7)
        )
    longest = max((abs(end - start) for start, end in arcs), default=1)
    ax.set_xlim(-(longest**0.5) * 1.05 - 0.1, 0)
    ax.axis("off")
