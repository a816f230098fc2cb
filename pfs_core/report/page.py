"""The report as one HTML file, its summary as Markdown for the Kubeflow UI and as JSON for programs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes

from pfs_core.data.page import balance, balance_words
from pfs_core.latency.results import Measurement
from pfs_core.methods.registry import METHODS
from pfs_core.methods.search_info import SearchInfo
from pfs_core.rendering.drawing import STYLE, render_page, svg_text
from pfs_core.rendering.pictures import png_text
from pfs_core.rendering.tables import markdown_table
from pfs_core.report import cells, figures, latency_figures
from pfs_core.report.explorer import explorer
from pfs_core.report.lost_classes import lost_most
from pfs_core.report.reproduce import commands
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.report.summary import ReportSummary, summarise
from pfs_core.report.verdict import met
from pfs_core.storage.artifacts import publish
from pfs_core.training.metrics import TrainingMetrics

_SMALL, _WIDE = (4.6, 2.9), (9.6, 3.6)


def write_report(results: Results, out: str | Path, mlflow_page: str = "", registered: str = "") -> ReportSummary:
    """Write ``report.html``, ``summary.md`` and ``report.json`` to ``out``; returns the last one's content.

    Args:
        results: of the run.
        out: the folder to write.
        mlflow_page: what the summary links to, if anything.
        registered: ``NAME/VERSION`` of the network in the model registry; empty if it is not there.
    """
    summary = summarise(results, registered)
    page = render_page(
        __package__,
        "template.html",
        r=results,
        verdict=summary.verdict,
        header=cells.PAGE_HEADER,
        rows=cells.page_cells(summary.table),
        drawings=_drawings(results),
        measurement_header=cells.MEASUREMENT_HEADER,
        measurements=[row for found in results.latency.measurements for row in cells.measurement_cells(found)],
        step_header=cells.STEP_HEADER,
        steps=cells.step_cells(results),
        search=_search_words(results),
        mistakes=[(png_text(image), f"{label} taken for {found}") for image, label, found in results.mistakes],
        lost=[cells.lost_cells(row) for row in lost_most(results)],
        balance=balance_words(results.split.rows_per_class),
        commands=commands(results),
        explorer_data=explorer(results),
        refuted=_refuted(results),
        doubts=[line for found in results.latency.measurements for line in _doubts(found)],
        mlflow_page=mlflow_page,
        registered=registered,
        met=met(results.structure),
        code=_codes(results),
    )
    with publish(out, "report") as folder:
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "summary.md").write_text(markdown(results, summary, mlflow_page), encoding="utf-8")
        summary.save(folder / "report.json")
    return summary


def markdown(results: Results, summary: ReportSummary, mlflow_page: str = "") -> str:
    """The verdict as a list, the table and a link."""
    table = markdown_table(cells.HEADER, cells.table_cells(summary.table))
    lines = [f"# {results.title}", "", *(f"- {line}" for line in summary.verdict), "", *table]
    if mlflow_page:
        lines += ["", f"[This run in MLflow]({mlflow_page})"]
    return "\n".join(lines) + "\n"


class _Drawing(NamedTuple):
    """A figure, in the order of the template's arguments."""

    caption: str
    words: str
    svg: str
    wide: bool


def _drawings(results: Results) -> dict[str, list[_Drawing]]:
    """The figures by the heading that they are below."""

    def drawn(caption: str, plot: Callable[[Axes, Results], str], size: tuple[float, float] = _SMALL) -> _Drawing:
        svg, words = figures.draw(plot, results, size)
        return _Drawing(caption, words, svg, size[0] > _SMALL[0])

    history, split = results.search_history, results.split
    search = [drawn("Gates after the search", figures.gate_histogram)]
    if "closed" in history and len(history) > 1:
        search.append(drawn("How the gates part", figures.polarisation))
    search += [drawn(*shown) for column, shown in figures.SEARCH_CURVES.items() if column in history]
    if len(results.pretraining):
        search.append(drawn("The training before the search", figures.pretraining))
    matrix_size = (4.6, 4.0) if len(split.class_names) <= figures.COUNTED else (9.6, 7.6)
    with mpl.rc_context(STYLE):
        classes = svg_text(balance(split.class_names, split.rows_per_class))
    widths = [drawn("Channels of every group: dense, expanded and kept", figures.channels, _WIDE)]
    if results.structure.block > 1:
        widths.append(drawn("How full the blocks of the runtime are", figures.block_use, _WIDE))
    return {
        "Where the channels went": widths,
        "The search": search,
        "Latency": [
            drawn(f"Latency in {RUNTIME_NAMES[found.runtime]}", partial(latency_figures.latency, measurement=found))
            for found in (results.quoted, *results.latency.beside_quoted)
        ],
        "Accuracy": [
            drawn("Accuracy against latency", latency_figures.accuracy_and_latency),
            drawn("The retraining", figures.training_curves),
            drawn("The loss of the retraining", figures.training_losses),
            drawn("Mistakes of the pruned network", figures.confusion, matrix_size),
        ],
        "Data": [_Drawing("Images of each class", balance_words(split.rows_per_class), classes, True)],
    }


def _refuted(results: Results) -> dict[str, dict[str, str]]:
    """What the proof of the channel graph has left alone: sentences that end with groups, and these with reasons."""
    found = {
        "The proof on this network found groups that must keep their width:": results.search.frozen,
        "It found groups that may lose channels and not get more:": results.search.no_wider,
    }
    return {what: groups for what, groups in found.items() if groups}


def _doubts(found: Measurement) -> list[str]:
    """Sentences on samples that are noisy or have two modes."""
    where = f"In {RUNTIME_NAMES[found.runtime]}, batch {found.batch}, on {found.threads} thread(s) the samples of"
    lines = []
    for flag in sorted({flag for stats in found.models.values() for flag in stats.flags}):
        names = [name for name, stats in found.models.items() if flag in stats.flags]
        lines.append(f"{where} {', '.join(names)} are {flag}.")
    return lines


def _codes(results: Results) -> dict[str, list[str]]:
    """Commit and image, in words, of the steps that know theirs, and these steps."""
    found: dict[str, list[str]] = {}
    steps: dict[str, SearchInfo | TrainingMetrics] = {"search": results.search, **results.metrics}
    for step, made in steps.items():
        words = [f"commit {made.git_commit}"] if made.git_commit else []
        words += [f"image {made.image}"] if made.image else []
        if words:
            found.setdefault(", ".join(words), []).append(step)
    return found


def _search_words(results: Results) -> str:
    """How the structure was chosen, in a line."""
    info, last = results.search, results.search_history[-1:].to_dict("records")
    said = METHODS[info.method].describe(info, last[0] if last else {})
    where = f"expansion {results.spec.expand}, policy {info.config.policy}, seed {info.seed}"
    return f"{results.method}: {said}; {where}"
