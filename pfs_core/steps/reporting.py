"""The steps that show what came out: the report of one network, and comparisons of several."""

import logging
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_core.config.overrides import prefixed
from pfs_core.runtime.logs import COLUMNS
from pfs_core.steps.folders import about
from pfs_core.steps.kept import RUNS
from pfs_core.tracking import StepRun, finite, mark_finished, step_run

if TYPE_CHECKING:
    from pfs_core.report import Results

logger = logging.getLogger(__package__)


def report(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dir: str | Path,
    model_dirs: Sequence[str | Path],
    latency_dir: str | Path,
    out: str | Path,
    registered_name: str = "",
    label: str = "",
) -> dict[str, Any]:
    """Write the ``report`` folder of one budget, log and register the pruned network.

    Args:
        split_dir: the ``split`` folder.
        gates_dir: the ``gates`` folder.
        structures_dir: the ``structures`` folder.
        model_dirs: a ``model`` folder for each network that was trained, the pruned one among them.
        latency_dir: the ``latency`` folder.
        out: the folder to write; it must not be there or be empty.
        registered_name: the name in MLflow's registry; empty for ``pfs-`` and that of the network.
        label: what the names of figures and folders start with on the pipeline's run, where several networks share it;
            made to a name that MLflow takes.

    Returns:
        The figures of :meth:`pfs_core.report.results.Results.figures` that are finite.

    Raises:
        UserError: the folders are not of one run.
    """
    from pfs_core.rendering.tables import text_table
    from pfs_core.report import load_results, write_report
    from pfs_core.report.cells import TERMINAL_HEADER, terminal_cells
    from pfs_core.report.page import markdown
    from pfs_core.storage.artifacts import COMPLETE, plain_name, short_name
    from pfs_core.storage.digests import file_digest

    label = short_name(label)
    results = load_results(split_dir, gates_dir, structures_dir, model_dirs, latency_dir)
    name = registered_name or f"pfs-{plain_name(results.spec.name)}"
    params = {"report.models": [file_digest(Path(folder) / COMPLETE) for folder in model_dirs]}
    tags = {**about(results.structure), "dataset": results.split.dataset}
    with step_run("report", params, results.title, tags) as run:
        version = _registered(run, results, name, once=RUNS in os.environ or "KFP_RUN_ID" not in os.environ)
        summary = write_report(results, out, run.url, version)
        run.dataset(results.split.dataset, results.split.fingerprint, "report")
        run.artifact(out, "report")
        below = f"{label}/" if label else ""
        files = {"report": out, "structure": Path(structures_dir) / "structure.json"}
        run.present(markdown(results, summary), {f"{below}{folder}": path for folder, path in files.items()})
        figures = summary.figures
        run.metrics(figures)
        run.summary(prefixed(label, figures) if label else figures)
        if version:
            run.params({"report.registered_model": version})
    mark_finished()
    where = [f"registered as {version}"] * bool(version) + [f"in MLflow: {run.url}"] * bool(run.url)
    verdict = [line for text in summary.verdict for line in textwrap.wrap(text, COLUMNS)]
    for line in [*text_table(TERMINAL_HEADER, terminal_cells(summary.table)), "", *verdict, *where]:
        logger.info(line)
    return finite(figures)


def compare(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dir: str | Path,
    out: str | Path,
    registered_name: str = "",
) -> dict[str, Any]:
    """Write the ``comparison`` folder of several budgets, log and register the pruned networks.

    Args:
        split_dir: the ``split`` folder.
        gates_dir: the ``gates`` folder that all budgets are cut from.
        structures_dirs: the ``structures`` folder of each budget.
        model_dirs: the ``model`` folders of its networks.
        latency_dirs: the ``latency`` folder of each budget.
        dense_dir: the ``model`` folder of the dense network.
        out: the folder to write; it must not be there or be empty.
        registered_name: the name in MLflow's registry; empty for ``pfs-`` and that of the network.

    Returns:
        The figures of every row of the table, named by it, and ``search_seconds``.

    Raises:
        UserError: the folders are not of one run.
    """
    from pfs_core.report.runs import load_budgets
    from pfs_core.storage.artifacts import plain_name

    budgets = load_budgets(split_dir, gates_dir, structures_dirs, model_dirs, latency_dirs, dense_dir)
    name = registered_name or f"pfs-{plain_name(budgets[0].spec.name)}"
    searched = {"search_seconds": budgets[0].search.stage_seconds["search"]}
    return _compared(budgets, model_dirs, out, searched, name)


def compare_methods(
    split_dir: str | Path,
    gates_dirs: Sequence[str | Path],
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dirs: Sequence[str | Path],
    out: str | Path,
) -> dict[str, Any]:
    """Write the ``comparison`` folder of several methods, budgets and seeds.

    Args:
        split_dir: the ``split`` folder.
        gates_dirs: a ``gates`` folder for each method, budget and seed.
        structures_dirs: the ``structures`` folder of each.
        model_dirs: the ``model`` folder of each.
        latency_dirs: the ``latency`` folder of each.
        dense_dirs: ``model`` folders of the dense network, one a seed.
        out: the folder to write; it must not be there or be empty.

    Returns:
        The figures of every row of the table, named by it; seeds are pooled.

    Raises:
        UserError: the folders are not of one dataset and network.
    """
    from pfs_core.report.runs import load_methods

    runs = load_methods(split_dir, gates_dirs, structures_dirs, model_dirs, latency_dirs, dense_dirs)
    return _compared(runs, model_dirs, out)


def _compared(
    runs: Sequence["Results"],
    model_dirs: Sequence[str | Path],
    out: str | Path,
    more: Mapping[str, float] | None = None,
    registered_name: str = "",
) -> dict[str, Any]:
    """Write the ``comparison`` folder of finished runs and log it; returns its figures and ``more`` that are finite.

    With ``registered_name`` the pruned network of each run is registered by that name.
    """
    from pfs_core.report.comparison import figures_of, write_comparison
    from pfs_core.storage.artifacts import COMPLETE
    from pfs_core.storage.digests import file_digest

    spec, data = runs[0].spec, runs[0].split
    params = {"compare.models": [file_digest(Path(folder) / COMPLETE) for folder in model_dirs]}
    with step_run("compare", params, spec.name, {"model": spec.name, "dataset": data.dataset}) as run:
        comparison = write_comparison(runs, out, run.url)
        run.dataset(data.dataset, data.fingerprint, "report")
        run.artifact(out, "comparison")
        versions = [_registered(run, results, registered_name) for results in runs] if registered_name else []
        figures = finite({**figures_of(comparison.rows), **(more or {})})
        run.metrics(figures)
        run.summary(figures)
        if any(versions):
            run.params({"compare.registered_models": versions})
    mark_finished()
    return figures


def _registered(run: StepRun, results: "Results", name: str, once: bool = False) -> str:
    """Log and register the pruned network of a run with what is known of it; returns ``name/version``.

    On a cluster every request of the registry has a version of its own; elsewhere a report that is made again of the
    same networks adds none (``once``).
    """
    from pfs_core.export.deployable import deployable, example_images
    from pfs_core.report.card import model_card, model_files, version_tags
    from pfs_core.training.retrain import load_model

    network, _ = load_model(results.model_dir)
    card, files = model_card(results, name), model_files(results)
    example, tags = example_images(results.spec.input_shape), version_tags(results)
    return run.model(deployable(network, results.split), example, name, card, files, tags, once)
