"""The last step of several budgets: compare them on one page."""

from typing import List

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output
from pfs_components.base import component


@component
def compare_budgets(
    split: Input[Dataset],
    gates: Input[Artifact],
    structures: Input[List[Artifact]],
    models: Input[List[Model]],
    latencies: Input[List[Artifact]],
    dense: Input[Model],
    folder: Output[Artifact],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    registered_model: str = "",
):
    """Compare all budgets on one page, and register every pruned network in the model registry.

    Args:
        split: Output of the split step.
        gates: Output of the search step.
        structures: Outputs of the extract step, one per budget.
        models: Outputs of the retrain step, one per budget.
        latencies: Outputs of the latency step, one per budget.
        dense: Output of the retrain step for the dense network.
        folder: Folder with the page, the table as CSV and JSON, and the report of each budget.
        page: The page as HTML.
        summary: The table of the budgets.
        metrics: Accuracy, MACs and latency ratio of every budget.
        registered_model: Name in the MLflow Model Registry; empty for `pfs-` and the network's name.
    """
    import shutil
    from pathlib import Path

    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        figures = steps.compare(
            split.path,
            gates.path,
            [artifact.path for artifact in structures],
            [artifact.path for artifact in models],
            [artifact.path for artifact in latencies],
            dense.path,
            folder.path,
            registered_model,
        )
    for name, value in figures.items():
        metrics.log_metric(name, value)
    shutil.copyfile(Path(folder.path) / "comparison.html", page.path)
    shutil.copyfile(Path(folder.path) / "comparison.md", summary.path)
