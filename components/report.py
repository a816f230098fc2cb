"""The sixth step: report a run."""

from typing import List

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output
from pfs_components.base import component


@component
def report(
    split: Input[Dataset],
    gates: Input[Artifact],
    structures: Input[Artifact],
    models: Input[List[Model]],
    latency: Input[Artifact],
    folder: Output[Artifact],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    registered_model: str = "",
    label: str = "",
):
    """Report the run on one page, and register the pruned network in the model registry.

    Args:
        split: Output of the split step.
        gates: Output of the search step.
        structures: Output of the extract step.
        models: Outputs of the retrain step.
        latency: Output of the latency step.
        folder: Folder with the page, the summary and the figures as JSON.
        page: The page as HTML.
        summary: The verdict and the table of the networks.
        metrics: The final figures of the run.
        registered_model: Name in the MLflow Model Registry; empty for `pfs-` and the network's name.
        label: Prefix of the names of the figures in MLflow, for a run that several networks share.
    """
    import shutil
    from pathlib import Path

    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        folders = [model.path for model in models]
        figures = steps.report(
            split.path, gates.path, structures.path, folders, latency.path, folder.path, registered_model, label
        )
    for name, value in figures.items():
        metrics.log_metric(name, value)
    shutil.copyfile(Path(folder.path) / "report.html", page.path)
    shutil.copyfile(Path(folder.path) / "summary.md", summary.path)
