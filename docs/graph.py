"""Draws docs/graph.png: pipelines as the Kubeflow UI groups them, read from compiled packages.

    python docs/graph.py compress.yaml pareto.yaml compress_new_models.yaml --store sqlite:///pfs-runs/mlflow.db

The steps of the first one have the times of the newest run in an MLflow store, which must be one of ``pfs run``.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WIDTH, HEIGHT, GAP = 2.35, 0.5, 0.75
STEPS = {
    "split-data": "split",
    "search-gates": "search",
    "extract-structure": "extract",
    "retrain": "retrain/",
    "benchmark-latency": "latency",
    "report": "report",
}
"""A task, and how the tag pfs.step of its runs begins."""


def times(store: str) -> dict[str, str]:
    """What each task of the newest run in a store took."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`pfs.step` = 'pipeline' and attributes.status = 'FINISHED'")
    steps = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{runs[0].info.run_id}'")
    found = {}
    for task, begins in STEPS.items():
        spent = [s.info.end_time - s.info.start_time for s in steps if s.data.tags["pfs.step"].startswith(begins)]
        seconds = ", ".join(f"{milliseconds / 1000:.0f}" for milliseconds in sorted(spent))
        found[task] = f"{seconds} s"
    return found


def direct(tasks: dict[str, Any]) -> dict[str, set[str]]:
    """The tasks that each one waits for, without those that another of them waits for anyway."""
    before = {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()}

    def ancestors(name: str) -> set[str]:
        return before[name].union(*map(ancestors, before[name]))

    return {name: own - set().union(*map(ancestors, own)) for name, own in before.items()}


def layers(tasks: dict[str, Any]) -> dict[str, int]:
    """How many tasks must end before each one."""
    depth: dict[str, int] = {}
    while len(depth) < len(tasks):
        for name, task in tasks.items():
            before = task.get("dependentTasks", [])
            if name not in depth and all(other in depth for other in before):
                depth[name] = 1 + max((depth[other] for other in before), default=-1)
    return depth


def draw(
    ax: Axes, spec: dict[str, Any], dag: dict[str, Any], took: dict[str, str], x: float, y: float, level: float = 0
) -> tuple[float, float]:
    """Draw a graph with its upper left corner at x, y; returns its width and height."""
    tasks = dag["tasks"]
    depth = layers(tasks)
    rows: dict[int, list[str]] = {}
    for name in sorted(tasks):
        rows.setdefault(depth[name], []).append(name)
    places: dict[str, tuple[float, float, float, float]] = {}
    top, widest = y, 0.0
    for row in sorted(rows):
        left, tallest = x, 0.0
        for name in rows[row]:
            component = spec["components"][tasks[name]["componentRef"]["name"]]
            if "dag" in component:
                inner_width, inner_height = draw(ax, spec, component["dag"], took, left + 0.2, top - 0.45, level + 0.1)
                width, height = inner_width + 0.4, inner_height + 0.6
                box(ax, left, top, width, height, "#f1f5f9", "#94a3b8", level)
                ax.text(
                    left + 0.12, top - 0.22, tasks[name]["taskInfo"]["name"], fontsize=7, color="#475569", va="center"
                )
            else:
                width, height = WIDTH, HEIGHT
                box(ax, left, top, width, height, "#ffffff", "#1f6fb4", 3)
                label = tasks[name]["taskInfo"]["name"] + (f"\n{took[name]}" if name in took else "")
                ax.text(left + width / 2, top - height / 2, label, fontsize=7.5, ha="center", va="center", zorder=4)
            places[name] = (left, top, width, height)
            left += width + 0.25
            tallest = max(tallest, height)
        widest = max(widest, left - 0.25 - x)
        top -= tallest + GAP - 0.35
    for name, waits_for in direct(tasks).items():
        for other in sorted(waits_for):
            from_x, from_y, from_width, from_height = places[other]
            to_x, to_y, to_width, _ = places[name]
            ax.annotate(
                "",
                (to_x + to_width / 2, to_y),
                (from_x + from_width / 2, from_y - from_height),
                arrowprops={"arrowstyle": "-|>", "color": "#64748b", "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
                zorder=2,
            )
    return widest, y - top - (GAP - 0.35)


def box(ax: Axes, x: float, y: float, width: float, height: float, fill: str, edge: str, z: float = 0) -> None:
    """A rounded box below and to the right of x, y."""
    shape = FancyBboxPatch((x, y - height), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc=fill, ec=edge)
    shape.set(lw=0.9, zorder=z)
    ax.add_patch(shape)


def main(packages: list[str], store: str) -> None:
    """Draw the packages side by side."""
    figure = Figure(figsize=(5.5 * len(packages), 6.2), layout="constrained")
    for i, (ax, package) in enumerate(zip(figure.subplots(1, len(packages)), packages, strict=True)):
        spec = next(yaml.safe_load_all(Path(package).read_text()))
        width, height = draw(ax, spec, spec["root"]["dag"], {} if i else times(store), 0, 0)
        ax.set_xlim(-0.1, width + 0.1)
        ax.set_ylim(-height - 0.1, 0.1)
        ax.set_aspect("equal")
        ax.axis("off")
        ax.set_title(spec["pipelineInfo"]["displayName"], fontsize=10, loc="left")
    figure.savefig(Path(__file__).with_name("graph.png"), dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--store", required=True)
    given = parser.parse_args()
    main(given.packages, given.store)
