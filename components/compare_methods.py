"""The last step of several methods and seeds: compare them on one page."""

from typing import List

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output
from pfs_components.base import component


@component
def compare_methods(
    split: Input[Dataset],
    gates: Input[List[Artifact]],
    structures: Input[List[Artifact]],
    models: Input[List[Model]],
    latencies: Input[List[Artifact]],
    dense: Input[List[Model]],
    folder: Output[Artifact],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
):
    """Compare all methods and budgets on one page by accuracy, size, latency and cost, with intervals over the seeds.

    Args:
        split: Output of the split step.
        gates: Outputs of the search step, one per method, budget and seed.
        structures: Outputs of the extract step, one per method, budget and seed.
        models: Outputs of the retrain step, one per method, budget and seed.
        latencies: Outputs of the latency step, one per method, budget and seed.
        dense: Outputs of the retrain step for the dense network, one per seed.
        folder: Folder with the page, the table as CSV, JSON and LaTeX, and the report of each network.
        page: The page as HTML.
        summary: The table of the methods.
        metrics: Accuracy, MACs, latency ratio and cost of every method and budget.
    """
    import shutil
    from pathlib import Path

    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        figures = steps.compare_methods(
            split.path,
            [artifact.path for artifact in gates],
            [artifact.path for artifact in structures],
            [artifact.path for artifact in models],
            [artifact.path for artifact in latencies],
            [artifact.path for artifact in dense],
            folder.path,
        )
    for name, value in figures.items():
        metrics.log_metric(name, value)
    shutil.copyfile(Path(folder.path) / "comparison.html", page.path)
    shutil.copyfile(Path(folder.path) / "comparison.md", summary.path)
