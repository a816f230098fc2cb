"""Several budgets of one network beside each other: a page, a table for spreadsheets and figures for programs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from pfs_core.drawing import STYLE, render_page, svg_text
from pfs_core.errors import UserError
from pfs_core.files import plain_name, publish, read_json, require_result, write_json
from pfs_core.report.figures import COLOURS
from pfs_core.report.page import PAGE_HEADER, page_cells, write_report
from pfs_core.report.results import RUNTIME_NAMES, Results, load_results

SCHEMA = "pfs.comparison/1"
_COSTS = {"macs": "MACs", "params": "parameters", "p50_ms": "milliseconds an image, median"}
_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def load_budgets(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dir: str | Path,
) -> list[Results]:
    """The results of every budget, the largest network first.

    Models and latencies find their structure by what they are of, whatever the order of the folders.

    Raises:
        UserError: a folder is missing, or no model or latency is of one of the structures.
    """
    out = []
    for folder in structures_dirs:
        structure = require_result(folder, "structure", "pfs extract --gates DIR OUT") / "structure.json"
        cost = read_json(structure)["cost"]
        models = [path for path in model_dirs if (Path(path) / "structure.json").read_bytes() == structure.read_bytes()]
        latencies = [path for path in latency_dirs if _measured(path) == (cost["macs"], cost["params"])]
        if not models or not latencies:
            raise UserError(f"{folder} has no trained and measured network; retrain and benchmark its structure.json")
        out.append(load_results(split_dir, gates_dir, folder, [models[0], dense_dir], latencies[0]))
    return sorted(out, key=lambda results: -results.structures["pruned"].cost.macs)


def _measured(latency_dir: str | Path) -> tuple[int, int]:
    pruned = read_json(Path(latency_dir) / "latency.json")["models"]["pruned"]
    return pruned["macs"], pruned["params"]


def write_comparison(budgets: Sequence[Results], out: str | Path, mlflow_page: str = "") -> dict[str, Any]:
    """Write the comparison as HTML, CSV, LaTeX, Markdown and JSON to ``out``, and each report below it.

    Returns:
        The content of ``comparison.json``.
    """
    dense = budgets[0].table()[0]
    rows = [{"budget": "", **dense}] + [{"budget": _budget(results), **_pruned(results)} for results in budgets]
    best = front(rows)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "model": budgets[0].spec.name,
        "rows": [{**row, "on_front": row in best} for row in rows],
    }
    header = ["budget", *PAGE_HEADER[1:]]
    cells = [[_name(row), *texts[1:]] for row, texts in zip(rows, page_cells(rows), strict=True)]
    title = f"{budgets[0].spec.name} at {len(budgets)} budgets"
    lines = [f"# {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(texts) + " |" for texts in cells]
    lines += ["", f"[This run in MLflow]({mlflow_page})"] * bool(mlflow_page)
    with publish(out, "comparison") as folder:
        for results in budgets:
            write_report(results, folder / plain_name(_budget(results)))
        values = {"title": title, "header": header, "cells": cells, "svg": _drawing(rows), "first": budgets[0]}
        values["words"] = _words(rows)
        values["runtime"] = RUNTIME_NAMES[budgets[0].quoted["runtime"]]
        page = render_page(__package__, "comparison.html", **values)
        (folder / "comparison.html").write_text(page, encoding="utf-8")
        (folder / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "comparison.tex").write_text(latex_table(header, cells), encoding="utf-8")
        (folder / "comparison.csv").write_text(_csv(summary["rows"]), encoding="utf-8")
        write_json(folder / "comparison.json", summary)
    return summary


def front(rows: Sequence[dict[str, Any]], cost: str = "macs") -> list[dict[str, Any]]:
    """Those rows that no other beats: none is as accurate for less, or more accurate for as much, of ``cost``."""
    return [
        row
        for row in rows
        if not any(
            other["test_accuracy"] >= row["test_accuracy"]
            and other[cost] <= row[cost]
            and (other["test_accuracy"], other[cost]) != (row["test_accuracy"], row[cost])
            for other in rows
        )
    ]


def _budget(results: Results) -> str:
    return results.title.rpartition(" ")[2]


def _pruned(results: Results) -> dict[str, Any]:
    return next(row for row in results.table() if row["network"] == "pruned")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """One column a number: intervals become ``_low`` and ``_high``."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for key, value in row.items():
            if key.endswith(("interval", "interval_ms")):
                low, high = value or (None, None)
                line |= {f"{key}_low": low, f"{key}_high": high}
            elif not isinstance(value, list):
                line[key] = value
        flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def latex_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table for a paper, with the rules of the package booktabs."""
    lines = [" & ".join(text.translate(_TEX) for text in row) + r" \\" for row in (header, *cells)]
    columns = "l" + "r" * (len(header) - 1)
    top, *rest = lines
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", top, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(body) + "\n"


def _words(rows: Sequence[dict[str, Any]]) -> str:
    """What the drawing shows: every network's figures, and who is on which front."""
    networks = [
        f"{_name(row)} {row['test_accuracy']:.1%} at {row['macs']:,} MACs, {row['params']:,} parameters, "
        f"{row['p50_ms']:.3f} ms"
        for row in rows
    ]
    fronts = [f"{label}: {', '.join(map(_name, front(rows, key)))}" for key, label in _COSTS.items()]
    return f"Test accuracy: {'; '.join(networks)}. On the front by {'; by '.join(fronts)}."


def _name(row: dict[str, Any]) -> str:
    return row["budget"] or "dense"


def _drawing(rows: Sequence[dict[str, Any]]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        axes = figure.subplots(1, len(_COSTS), sharey=True)
        for ax, (key, label) in zip(axes, _COSTS.items(), strict=True):
            _scatter(ax, rows, key, label)
        axes[0].set_ylabel("test accuracy [95%]")
        axes[0].legend(loc="lower right")
        return svg_text(figure)


def _scatter(ax: Axes, rows: Sequence[dict[str, Any]], key: str, label: str) -> None:
    best = sorted(front(rows, key), key=lambda row: row[key])
    for row in rows:
        place, value = row[key], row["test_accuracy"]
        ax.errorbar(
            place,
            value,
            xerr=_away(place, row["p50_interval_ms"]) if key == "p50_ms" else None,
            yerr=_away(value, row["test_accuracy_interval"]),
            fmt="o",
            fillstyle="full" if row in best else "none",
            color=COLOURS["pruned" if row["budget"] else "dense"],
            capsize=3,
        )
        ax.annotate(_name(row), (place, value), xytext=(6, 4), textcoords="offset points", fontsize=7)
    ax.plot([row[key] for row in best], [row["test_accuracy"] for row in best], color="#999999", lw=1, label="front")
    ax.set_xlabel(label)
    ax.set_xlim(0, 1.15 * max(row[key] for row in rows))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    if key != "p50_ms":
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def _away(value: float, interval: Sequence[float]) -> list[list[float]]:
    """How far an interval reaches below and above a value that is in it."""
    low, high = interval
    return [[max(value - low, 0)], [max(high - value, 0)]]
