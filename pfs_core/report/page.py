"""The report as one HTML file, its summary as Markdown for the Kubeflow UI and as JSON for programs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

from pfs_core.data.page import balance, balance_words
from pfs_core.methods.registry import METHODS
from pfs_core.rendering.drawing import STYLE, render_page, svg_text
from pfs_core.report import figures
from pfs_core.report.reproduce import commands
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.storage.artifacts import publish, write_json

SCHEMA = "pfs.report/1"


def write_report(results: Results, out: str | Path, mlflow_page: str = "", registered: str = "") -> dict[str, Any]:
    """Write ``report.html``, ``summary.md`` and ``report.json`` to ``out``; returns the last one's content.

    Args:
        results: of the run.
        out: the folder to write.
        mlflow_page: what the summary links to, if anything.
        registered: ``NAME/VERSION`` of the network in the model registry; empty if it is not there.
    """
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": results.verdict(),
        "table": results.table(),
        "figures": results.figures(),
        "registered": registered,
    }
    page = render_page(
        __package__,
        "template.html",
        r=results,
        verdict=summary["verdict"],
        header=PAGE_HEADER,
        rows=page_cells(summary["table"]),
        drawings=_drawings(results),
        measurement_header=MEASUREMENT_HEADER,
        measurements=[row for found in results.latency["measurements"] for row in _measurement_cells(found)],
        step_header=STEP_HEADER,
        steps=_step_cells(results),
        search=_search_words(results),
        lost=[_lost_cells(row) for row in results.lost_most()],
        balance=balance_words(results.split["rows_per_class"]),
        commands=commands(results),
        doubts=[line for found in results.latency["measurements"] for line in _doubts(found)],
        mlflow_page=mlflow_page,
        registered=registered,
        code=_codes(results),
    )
    with publish(out, "report") as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "summary.md").write_text(markdown(results, summary, mlflow_page), encoding="utf-8")
        write_json(folder / "report.json", summary)
    return summary


_SMALL, _WIDE = (4.6, 2.9), (9.6, 3.6)

HEADER = ("network", "MACs", "parameters", "test accuracy [95%]", "epochs", "p50 latency", "ratio to dense [95%]")
PAGE_HEADER = (*HEADER[:5], "p50 latency, ms [95%]", HEADER[6], "file, MiB")
"""A page has room for more than a terminal."""
MEASUREMENT_HEADER = (
    *("runtime", "threads", "batch", "network", "p50, ms [95%]", "p90, ms", "p99, ms"),
    *("ratio to dense [95%]", "verdict", "MiB"),
)
STEP_HEADER = ("step", "time", "of processors or GPU", "images forward", "and backward", "on", "peak memory")


def _drawings(results: Results) -> dict[str, list[tuple[str, str, str, bool]]]:
    """Heading: (caption, words, svg, whether it is wide) of each figure."""

    def drawn(caption: str, plot: Any, size: tuple[float, float] = _SMALL) -> tuple[str, str, str, bool]:
        svg, words = figures.draw(plot, results, size)
        return caption, words, svg, size[0] > _SMALL[0]

    quoted = results.quoted
    alike = [m for m in results.latency["measurements"] if all(m[k] == quoted[k] for k in ("threads", "batch"))]
    search = [drawn("Gates after the search", figures.gate_histogram)]
    columns = results.search_history[0] if results.search_history else {}
    if "closed" in columns and len(results.search_history) > 1:
        search.append(drawn("How the gates part", figures.polarisation))
    search += [drawn(*shown) for column, shown in figures.SEARCH_CURVES.items() if column in columns]
    if results.pretraining:
        search.append(drawn("The training before the search", figures.pretraining))
    classes = results.split["class_names"]
    groups = {
        "Where the channels went": [
            drawn("Channels of every group: dense, expanded and kept", figures.channels, _WIDE)
        ],
        "The search": search,
        "Latency": [
            drawn(f"Latency in {RUNTIME_NAMES[m['runtime']]}", partial(figures.latency, measurement=m)) for m in alike
        ],
        "Accuracy": [
            drawn("The retraining", figures.training_curves),
            drawn("The loss of the retraining", figures.training_losses),
        ],
    }
    size = (4.6, 4.0) if len(classes) <= figures.COUNTED else (9.6, 7.6)
    groups["Accuracy"].append(drawn("Mistakes of the pruned network", figures.confusion, size))
    with mpl.rc_context(STYLE):
        svg = svg_text(balance(classes, results.split["rows_per_class"]))
    groups["Data"] = [("Images of each class", balance_words(results.split["rows_per_class"]), svg, True)]
    return groups


def _measurement_cells(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of ``MEASUREMENT_HEADER`` for a measurement: one a network."""
    rows = []
    for name, stats in found["models"].items():
        ratio = found["ratios_to_dense"].get(name)
        rows.append(
            (
                RUNTIME_NAMES[found["runtime"]],
                str(found["threads"]),
                str(found["batch"]),
                name,
                _with_interval(stats["p50_ms"], stats["p50_interval_ms"], ".3f"),
                *(f"{stats[key]:.3f}" for key in ("p90_ms", "p99_ms")),
                _with_interval(ratio["ratio"], ratio["interval"], ".3f") if ratio else "1",
                ratio["verdict"] if ratio else "",
                f"{stats['peak_memory_mib']:.1f}" if stats["peak_memory_mib"] else "-",
            )
        )
    return rows


def _doubts(found: Mapping[str, Any]) -> list[str]:
    """Sentences on samples that are noisy or have two modes."""
    flags = sorted({flag for stats in found["models"].values() for flag in stats["flags"]})
    where = f"In {RUNTIME_NAMES[found['runtime']]} on {found['threads']} thread(s) the samples of"
    return [f"{where} {', '.join(n for n, s in found['models'].items() if f in s['flags'])} are {f}." for f in flags]


def _step_cells(results: Results) -> list[tuple[str, ...]]:
    """A row of ``STEP_HEADER`` for each step; older runs do not have all of it."""
    rows: list[tuple[str, ...]] = [("split", _seconds(results.split_seconds), "-", "-", "-", "cpu", "-")]
    done = [("search", results.search), *((f"retraining, {name}", m) for name, m in results.metrics.items())]
    for name, info in done:
        for stage, cost in (info.get("cost") or {"": {"seconds": info["seconds"]}}).items():
            rows.append(
                (
                    "training before the search" if stage == "pretrain" else name,
                    *(_seconds(cost.get(key)) for key in ("seconds", "device_seconds")),
                    *(f"{cost[key]:,}" if key in cost else "-" for key in ("forward_images", "backward_images")),
                    f"{info['device']}, {info['precision']}",
                    ", ".join(f"{mib:,} MiB {where}" for where, mib in info.get("peak_memory_mib", {}).items()) or "-",
                )
            )
        if name == "search":
            rows.append(("extraction", _seconds(results.extract_seconds), "-", "-", "-", "cpu", "-"))
    measured = _seconds(results.latency.get("seconds"))
    return [*rows, ("benchmark", measured, "-", f"{len(results.samples_table):,}", "0", "cpu, float32", "-")]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


def _codes(results: Results) -> dict[str, list[str]]:
    """Commit and image, in words, of the steps that know theirs, and these steps."""
    found: dict[str, list[str]] = {}
    for step, made in (("search", results.search), *results.metrics.items()):
        known = (("git_commit", "commit"), ("image", "image"))
        if words := ", ".join(f"{word} {made[key]}" for key, word in known if key in made):
            found.setdefault(words, []).append(step)
    return found


def _search_words(results: Results) -> str:
    """How the structure was chosen, in a line."""
    info, history = results.search, results.search_history
    said = METHODS[info["method"]].describe(info, history[-1] if history else {})
    where = f"expansion {results.spec.expand}, policy {info['recipe']['policy']}, seed {info['seed']}"
    return f"{results.method}: {said}; {where}"


def _lost_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the classes that lost most; a few images mean little, so that they are counted."""
    images = round(row["lost"] * row["images"])
    lost = f"{100 * row['lost']:.1f} points ({images} image{'s' * (images > 1)})"
    return row["class"], f"{row['images']:,}", f"{row['dense']:.1%}", f"{row['pruned']:.1%}", lost


def table_cells(table: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of :meth:`Results.table` as text, in the columns of ``HEADER``."""
    return [
        (
            row["network"],
            f"{row['macs']:,}",
            f"{row['params']:,}",
            _with_interval(row["test_accuracy"], row["test_accuracy_interval"], ".2%") or "not trained",
            str(row["epochs"] or "-"),
            f"{row['p50_ms']:.3f} ms" if row["p50_ms"] else "not measured",
            _with_interval(row["latency_ratio"], row["latency_ratio_interval"], ".3f")
            or ("1" if row["network"] == "dense" else "-"),
        )
        for row in table
    ]


def page_cells(table: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of :meth:`Results.table` as text, in the columns of ``PAGE_HEADER``."""
    return [
        (
            *cells[:5],
            _with_interval(row["p50_ms"], row["p50_interval_ms"], ".3f") or "not measured",
            cells[6],
            f"{row['file_mib']:.2f}" if row["file_mib"] else "-",
        )
        for row, cells in zip(table, table_cells(table), strict=True)
    ]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    cells = [[text.rjust(width) for text, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    return ["  ".join([row[0].strip().ljust(widths[0]), *row[1:]]) for row in cells]


def markdown(results: Results, summary: dict[str, Any], mlflow_page: str = "") -> str:
    """The verdict, the table and a link."""
    lines = [f"# {results.title}", "", summary["verdict"], ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells) + " |" for cells in table_cells(summary["table"])]
    if mlflow_page:
        lines += ["", f"[This run in MLflow]({mlflow_page})"]
    return "\n".join(lines) + "\n"


def _with_interval(value: float | None, interval: list[float] | None, form: str) -> str:
    if value is None or interval is None:
        return ""
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"
