"""The report as one HTML file, its summary as Markdown for the Kubeflow UI and as JSON for programs."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pfs_core.files import publish, write_json
from pfs_core.report import figures
from pfs_core.report.results import Results

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
    drawings = [
        ("Channels of every group: dense, expanded and kept", figures.draw(figures.channels, results, (9.6, 3.6))),
        ("Gates after the search", figures.draw(figures.gate_histogram, results, (4.6, 2.9))),
        ("The search", figures.draw(figures.search_curves, results, (4.6, 2.9))),
        ("The retraining", figures.draw(figures.training_curves, results, (4.6, 2.9))),
        ("Latency at batch size 1", figures.draw(figures.latency, results, (4.6, 2.9))),
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("template.html").read_text(encoding="utf-8"))
    rows = [dict(zip(HEADER, cells, strict=True)) for cells in table_cells(summary["table"])]
    page = template.render(r=results, verdict=summary["verdict"], header=HEADER, rows=rows, drawings=drawings)
    with publish(out, "report") as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "summary.md").write_text(markdown(results, summary, mlflow_page), encoding="utf-8")
        write_json(folder / "report.json", summary)
    return summary


HEADER = ("network", "MACs", "parameters", "test accuracy [95%]", "epochs", "p50 latency", "ratio to dense [95%]")


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
