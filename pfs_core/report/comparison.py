"""Budgets, methods and seeds of one network beside each other: a page, and tables for people and programs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from scipy.stats import t as student

from pfs_core.errors import UserError
from pfs_core.latency.statistics import verdict
from pfs_core.rendering.drawing import STYLE, render_page, svg_text
from pfs_core.report.figures import COLOURS
from pfs_core.report.page import PAGE_HEADER, page_cells, write_report
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.runtime.progress import say
from pfs_core.storage.artifacts import plain_name, publish, write_json

SCHEMA = "pfs.comparison/1"
_COSTS = {"macs": "MACs", "params": "parameters", "p50_ms": "milliseconds an image, median"}
_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def write_comparison(runs: Sequence[Results], out: str | Path, mlflow_page: str = "") -> dict[str, Any]:
    """Write the comparison as HTML, CSV, LaTeX, Markdown and JSON to ``out``, and each report below it.

    Runs that differ in their seeds alone are one row, of means.

    Args:
        runs: of one network.
        out: the folder to write.
        mlflow_page: a link to what made it.

    Returns:
        The content of ``comparison.json``.

    Raises:
        UserError: latencies were measured in several ways, or two runs differ in nothing.
    """
    check_latencies(runs)
    kind, groups = _grouped(runs)
    rows = [_pooled([_row(results, "pruned", name) for results in group]) for name, group in groups.items()]
    dense: dict[int, dict[str, Any]] = {}
    for results in runs:
        if "dense" in results.metrics:
            dense.setdefault(results.metrics["dense"]["seed"], _row(results, "dense", ""))
    rows = [_pooled(list(dense.values())), *rows] if dense else rows
    best = front(rows)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "model": runs[0].spec.name,
        "rows": [{**row, "on_front": row in best} for row in rows],
    }
    header = [kind, *PAGE_HEADER[1:], "lost to dense", "seeds", *_SPENT.values()]
    cells = [
        [
            _name(row),
            *texts[1:],
            _points(row["accuracy_drop"]),
            str(row["seeds"]),
            *(_amount(row[key]) for key in _SPENT),
        ]
        for row, texts in zip(rows, page_cells(rows), strict=True)
    ]
    title = f"{runs[0].spec.name} by {kind}"
    lines = [f"# {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(texts) + " |" for texts in cells]
    lines += ["", f"[This run in MLflow]({mlflow_page})"] * bool(mlflow_page)
    with publish(out, "comparison") as folder:
        for name, group in groups.items():
            for results in group:
                seed = f"-seed{results.metrics['pruned']['seed']}" * (len(group) > 1)
                write_report(results, folder / f"{plain_name(name)}{seed}")
        values = {"title": title, "header": header, "cells": cells, "svg": _drawing(rows), "first": runs[0]}
        values |= {"words": _words(rows), "notes": _notes(runs, rows), "kind": kind}
        values["runtime"] = RUNTIME_NAMES[runs[0].quoted["runtime"]]
        page = render_page(__package__, "comparison.html", **values)
        (folder / "comparison.html").write_text(page, encoding="utf-8")
        (folder / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "comparison.tex").write_text(latex_table(header, cells), encoding="utf-8")
        (folder / "comparison.csv").write_text(_csv(summary["rows"]), encoding="utf-8")
        write_json(folder / "comparison.json", summary)
    return summary


def figures_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of every row by a flat name, for MLflow; each is also said in a line."""
    keys = ("test_accuracy", "accuracy_drop", "macs", "params", "p50_ms", "latency_ratio", *_SPENT)
    for row in rows:
        say(f"{_name(row):<18} {row['macs']:>13,} MACs  test accuracy {row['test_accuracy']:.2%}")
    return {f"{plain_name(_name(row))}.{key}": row[key] for row in rows for key in keys if row[key] is not None}


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


def _grouped(runs: Sequence[Results]) -> tuple[str, dict[str, list[Results]]]:
    """What the runs differ in (``budget``, ``method`` or ``network``), and the runs by what they are called so.

    Where runs of one budget and method were made with several settings, the names say in which these differ.

    Raises:
        UserError: two runs differ in nothing.
    """
    keys = [(results.search["method"], _budget(results)) for results in runs]
    methods, budgets = ({key[i] for key in keys} for i in (0, 1))
    kind = "budget" if len(methods) == 1 else "method" if len(budgets) == 1 else "network"
    groups: dict[str, list[Results]] = {}
    for key, results in zip(keys, runs, strict=True):
        method, budget = key
        name = {"budget": budget, "method": method, "network": f"{method} {budget}"}[kind]
        alike = [_settings(other) for other, others in zip(runs, keys, strict=True) if others == key]
        own = _settings(results)
        differing = [setting for setting in own if any(other.get(setting) != own[setting] for other in alike)]
        groups.setdefault(", ".join([name, *(f"{s}={own[s]}" for s in differing)]), []).append(results)
    for name, group in groups.items():
        seeds = [results.metrics["pruned"]["seed"] for results in group]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"two runs are of {name} and seed {max(seeds, key=seeds.count)}; give one of them")
    return kind, groups


def _settings(results: Results) -> dict[str, Any]:
    """All settings that a pruned network and its accuracy follow from, but for the seed."""
    stages = {"search": results.search["recipe"], "retrain": results.metrics["pruned"]["recipe"]}
    pruned = results.structures["pruned"]
    stages["extract"] = pruned.provenance.get("settings") or {
        key: pruned.chosen_by.get(key) for key in ("channel_multiple", "floor")
    }
    return {f"{stage}.{key}": value for stage, settings in stages.items() for key, value in settings.items()}


def check_latencies(runs: Sequence[Results]) -> None:
    """Raise UserError unless the latencies that are quoted were all measured in one way."""
    ways = [
        f"{RUNTIME_NAMES[quoted['runtime']]}, batch {quoted['batch']}, {quoted['threads']} thread(s)"
        for quoted in (results.quoted for results in runs)
    ]
    for way, results in zip(ways, runs, strict=True):
        if way != ways[0]:
            raise UserError(
                f"latencies cannot be compared: {runs[0].title} was measured in {ways[0]}, {results.title} in {way}; "
                "benchmark them with the same latency settings"
            )


def _budget(results: Results) -> str:
    return str(results.structures["pruned"].target_budget)


def _row(results: Results, network: str, name: str) -> dict[str, Any]:
    """The figures of a network of a run; ``name`` is that of its row."""
    about = (_budget(results), results.search["method"]) if name else ("", "")
    row = next(row for row in results.table() if row["network"] == network)
    spent: dict[str, Any] = {**dict.fromkeys(_SPENT), "accuracy_drop": None}
    spent["retrain_seconds"] = results.metrics[network]["seconds"]
    if name:
        stages = results.search["cost"].values()
        spent |= {f"{stage}_seconds": seconds for stage, seconds in results.stage_seconds.items()}
        spent["extract_seconds"] = results.extract_seconds
        spent["accuracy_drop"] = results.figures().get("accuracy_drop")
        for key in ("device_seconds", "forward_images", "backward_images"):
            spent[f"search_{key}"] = sum(stage[key] for stage in stages) if stages else None
    return {"name": name, **dict(zip(("budget", "method"), about, strict=True)), **spent, **row}


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


_SPENT = {
    "pretrain_seconds": "training before the search, s",
    "search_seconds": "search, s",
    "extract_seconds": "extraction, s",
    "retrain_seconds": "training of the result, s",
    "search_device_seconds": "choice, on devices, s",
    "search_forward_images": "choice, images forward",
    "search_backward_images": "choice, images backward",
}
"""What it took; the choice of a structure is the search and the training before it, devices are GPUs or processors."""

_MEANS = ("macs", "params", "epochs", "p50_ms", "latency_ratio", "test_accuracy", "accuracy_drop", "file_mib")
_INTERVALS = {
    "test_accuracy": "test_accuracy_interval",
    "p50_ms": "p50_interval_ms",
    "latency_ratio": "latency_ratio_interval",
}


def _pooled(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of several seeds: means, with intervals.

    An interval is Student's 95% one over the seeds; where that is narrower than the mean of the seeds' own (the same
    images test all of them, and one machine measures them), it reaches as far as that does.
    """
    out = {**rows[0], "seeds": len(rows)}
    if len(rows) == 1:
        return out
    for key in (*_MEANS, *_SPENT):
        if all(row[key] is not None for row in rows):
            mean = float(np.mean([row[key] for row in rows]))
            out[key] = round(mean) if isinstance(rows[0][key], int) else mean
    for key, interval in _INTERVALS.items():
        if out[key] is not None:
            values = [row[key] for row in rows]
            reach = float(student.ppf(0.975, len(rows) - 1) * np.std(values, ddof=1) / np.sqrt(len(rows)))
            low, high = (float(np.mean([row[interval][end] for row in rows])) for end in (0, 1))
            top = 1.0 if key == "test_accuracy" else np.inf
            out[interval] = [max(min(out[key] - reach, low), 0.0), min(max(out[key] + reach, high), top)]
    if ratio := out["latency_ratio_interval"]:
        out["latency_verdict"] = verdict(*ratio)
    return out


def _notes(runs: Sequence[Results], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What has to be known to read the table."""
    first = runs[0]
    searches = {(r.search["budget"], r.search["seed"], r.structures["pruned"].provenance["gates_sha256"]) for r in runs}
    trained = " or ".join(sorted({results.training for results in runs}))
    made = (
        f"One search of {first.spec.name} at {first.spec.expand}x its widths, aimed at {first.search['budget']}, "
        f"cut at every budget; each network was {trained} with the same settings."
        if len(searches) == 1
        else f"Every network was chosen and {trained} in a run of its own."
    )
    accuracy = (
        f"Accuracy intervals of one seed are Wilson's over the {first.metrics['pruned']['test_rows']} test images and "
        "do not cover the spread between trainings"
    )
    several = "; those of several seeds are Student's over the seeds, and no narrower than the mean of their own"
    machines = sorted({results.latency["machine"]["cpu"] for results in runs})
    elsewhere = f"Latencies were measured on several machines: {'; '.join(machines)}. Compare their ratios only."
    noisy = sorted({reason for results in runs for reason in results.latency["noisy"]})
    return [
        made,
        f"{accuracy}{several * any(row['seeds'] > 1 for row in rows)}.",
        *([elsewhere] if len(machines) > 1 else []),
        *([f"A machine was noisy while latency was measured: {'; '.join(noisy)}."] if noisy else []),
    ]


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
    return row["name"] or "dense"


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
            color=COLOURS["pruned" if row["name"] else "dense"],
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
