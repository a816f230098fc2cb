"""Budgets, methods and seeds of one network beside each other: a page, and tables for people and programs."""

import csv
import io
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pfs_core.rendering.drawing import render_page
from pfs_core.rendering.tables import latex_table, markdown_table, text_table
from pfs_core.report.cells import PAGE_HEADER, TERMINAL_HEADER, page_cells, terminal_cells
from pfs_core.report.comparison_figure import drawing, words
from pfs_core.report.comparison_groups import grouped, quoting_alike, trained_alike
from pfs_core.report.comparison_rows import ComparisonRow, dense_row, pareto_front, pooled, pruned_row, uniform_row
from pfs_core.report.comparison_verdict import comparison_verdict
from pfs_core.report.page import write_report
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.runtime.logs import COLUMNS
from pfs_core.storage.artifacts import plain_name, publish, write_json

logger = logging.getLogger(__package__)

SCHEMA = "pfs.comparison/1"
_EFFORT = {
    "pretrain_seconds": "training before the search, s",
    "search_seconds": "search, s",
    "extract_seconds": "extraction, s",
    "retrain_seconds": "training of the result, s",
    "search_device_seconds": "choice, on devices, s",
    "search_forward_images": "choice, images forward",
    "search_backward_images": "choice, images backward",
}
"""The choice of a structure is the search and the training before it; devices are GPUs or processors."""

_SHOWN = [PAGE_HEADER.index(name) for name in PAGE_HEADER[1:] if name not in ("epochs", "file, MiB")]
"""The columns of a report's table that the first table has too; with all of them it would not fit a page."""


@dataclass(frozen=True)
class Comparison:
    """Networks beside each other.

    Attributes:
        model: the network that was pruned.
        dataset: that they were trained on.
        kind: what the rows differ in: ``budget``, ``method`` or ``network``.
        rows: the dense network first, if it was trained; several where their settings differ.
    """

    model: str
    dataset: str
    kind: str
    rows: list[ComparisonRow]

    @property
    def title(self) -> str:
        """The heading of the page."""
        return f"{self.model} on {self.dataset} by {self.kind}"

    @property
    def verdict(self) -> list[str]:
        """What came out, in a few lines."""
        return comparison_verdict(self.rows)

    @property
    def header(self) -> list[str]:
        """The columns of ``cells``."""
        return [self.kind, *(PAGE_HEADER[i] for i in _SHOWN), "lost to dense", "seeds"]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        texts = page_cells([row.network for row in self.rows])
        return [
            [row.label, *(cells[i] for i in _SHOWN), _points(row.accuracy_drop), str(row.seeds)]
            for row, cells in zip(self.rows, texts, strict=True)
        ]

    @property
    def effort_header(self) -> list[str]:
        """The columns of ``effort_cells``."""
        return [self.kind, "file, MiB", "epochs", *_EFFORT.values()]

    @property
    def effort_cells(self) -> list[list[str]]:
        """How large every network's file is and what it took, as text."""
        return [
            [
                row.label,
                f"{row.network.file_mib:.2f}" if row.network.file_mib else "-",
                _amount(row.network.epochs),
                *(_amount(getattr(row.effort, key)) for key in _EFFORT),
            ]
            for row in self.rows
        ]

    def lines(self) -> list[str]:
        """The table of a terminal and the verdict."""
        texts = terminal_cells([row.network for row in self.rows])
        cells = [[row.label, *text[1:]] for row, text in zip(self.rows, texts, strict=True)]
        verdict = [line for text in self.verdict for line in textwrap.wrap(text, COLUMNS)]
        return [*text_table([self.kind, *TERMINAL_HEADER[1:]], cells), "", *verdict]


def write_comparison(runs: Sequence[Results], out: str | Path, mlflow_page: str = "") -> Comparison:
    """Write the comparison as HTML, CSV, LaTeX, Markdown and JSON to ``out``, and each report below it.

    Runs that differ in their seeds alone are one row, of means.

    Args:
        runs: of one network.
        out: the folder to write.
        mlflow_page: a link to what made it.

    Raises:
        UserError: latencies were measured in several ways, or two runs differ in nothing.
    """
    runs = quoting_alike(runs)
    kind, groups = grouped(runs)
    comparison = Comparison(runs[0].spec.name, runs[0].split.dataset, kind, _rows(runs, groups))
    rows, flat = comparison.rows, [row.flat() for row in comparison.rows]
    tables = [(comparison.header, comparison.cells), (comparison.effort_header, comparison.effort_cells)]
    lines = [f"# {comparison.title}", "", *(f"- {line}" for line in comparison.verdict)]
    for header, cells in tables:
        lines += ["", *markdown_table(header, cells)]
    if mlflow_page:
        lines += ["", f"[This run in MLflow]({mlflow_page})"]
    with publish(out, "comparison") as folder:
        reports = {}
        for name, group in groups.items():
            for results in group:
                seed = f"-seed{results.pruned.seed}" if len(group) > 1 else ""
                below = f"{plain_name(name)}{seed}"
                write_report(results, folder / below)
                reports[f"{name}, seed {results.pruned.seed}" if seed else name] = f"{below}/report.html"
        page = render_page(
            __package__,
            "comparison.html",
            c=comparison,
            reports=reports,
            svg=drawing(rows, runs[0].quoted.batch),
            words=words(rows, runs[0].quoted.batch),
            notes=_notes(runs, rows),
            first=runs[0],
            runtime=RUNTIME_NAMES[runs[0].quoted.runtime],
        )
        (folder / "comparison.html").write_text(page, encoding="utf-8")
        (folder / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "comparison.tex").write_text("\n".join(latex_table(*table) for table in tables), encoding="utf-8")
        (folder / "comparison.csv").write_text(_csv(flat), encoding="utf-8")
        write_json(folder / "comparison.json", {"schema": SCHEMA, "model": comparison.model, "rows": flat})
    return comparison


def figures_of(rows: Sequence[ComparisonRow]) -> dict[str, Any]:
    """The figures of every row by a flat name, for MLflow; each is also said in a line."""
    keys = ("test_accuracy", "accuracy_drop", "macs", "params", "p50_ms", "latency_ratio", *_EFFORT)
    figures: dict[str, Any] = {}
    for row in rows:
        logger.info(f"{row.label:<18} {row.network.macs:>13,} MACs  test accuracy {row.network.test_accuracy:.2%}")
        flat = row.flat()
        figures |= {f"{plain_name(row.label)}.{key}": flat[key] for key in keys if flat[key] is not None}
    return figures


def _rows(runs: Sequence[Results], groups: dict[str, list[Results]]) -> list[ComparisonRow]:
    """One row per group, and one of its uniform widths where they were trained and measured, below the dense networks.

    Of each network, only those that were trained alike are one row.
    """
    rows = _dense_rows([results for results in runs if results.dense])
    for name, group in groups.items():
        rows.append(pooled([pruned_row(results, name) for results in group]))
        if all("uniform" in results.metrics and "uniform" in results.quoted.models for results in group):
            for settings, alike in trained_alike(group, "uniform").items():
                called = ", ".join(filter(None, [name, "uniform widths", settings]))
                rows.append(pooled([uniform_row(results, called) for results in alike]))
    best = pareto_front(rows)
    return [replace(row, on_front=row in best) for row in rows]


def _dense_rows(runs: Sequence[Results]) -> list[ComparisonRow]:
    """The dense networks; one that several runs share is counted once."""
    rows = []
    for settings, alike in trained_alike(runs, "dense").items():
        by_seed: dict[int, ComparisonRow] = {}
        for results in alike:
            by_seed.setdefault(results.metrics["dense"].seed, dense_row(results, settings and f"dense, {settings}"))
        rows.append(pooled(list(by_seed.values())))
    return rows


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _notes(runs: Sequence[Results], rows: Sequence[ComparisonRow]) -> list[str]:
    """What has to be known to read the table."""
    first = runs[0]
    searches = {(r.search.budget, r.search.seed, r.structure.provenance["gates_sha256"]) for r in runs}
    trained = " or ".join(sorted({results.training for results in runs}))
    made = f"Every network was chosen and {trained} in a run of its own."
    if len(searches) == 1:
        alike = " with the same settings" if len(trained_alike(runs, "pruned")) == 1 else ""
        made = (
            f"One search of {first.spec.name} at {first.spec.expand}x its widths, aimed at {first.search.budget}, "
            f"cut at every budget; each network was {trained}{alike}."
        )
    accuracy = (
        f"Accuracy intervals of one seed are Wilson's over the {first.pruned.test_rows} test images and "
        "do not cover the spread between trainings"
    )
    if any(row.seeds > 1 for row in rows):
        accuracy += "; those of several seeds are Student's over the seeds, and no narrower than the mean of their own"
    notes = [made, f"{accuracy}."]
    machines = sorted({results.latency.machine.cpu for results in runs})
    if len(machines) > 1:
        notes.append(f"Latencies were measured on several machines: {'; '.join(machines)}. Compare their ratios only.")
    if noisy := sorted({reason for results in runs for reason in results.latency.noisy}):
        notes.append(f"A machine was noisy while latency was measured: {'; '.join(noisy)}.")
    return notes


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """One column per number: intervals become ``_low`` and ``_high``."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for key, value in row.items():
            if key.endswith(("interval", "interval_ms")):
                low, high = value or (None, None)
                line |= {f"{key}_low": low, f"{key}_high": high}
            elif not isinstance(value, list | tuple):
                line[key] = value
        flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
