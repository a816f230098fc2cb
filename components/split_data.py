"""The first step: choose the rows that train, validate and test."""

from kfp.dsl import HTML, Dataset, Metrics, Output
from pfs_components.base import component


@component
def split_data(
    dataset: str,
    split: Output[Dataset],
    page: Output[HTML],
    metrics: Output[Metrics],
    recipe: str = "",
    settings: dict = {},
    seed: int = 0,
    fingerprint: str = "",
):
    """Choose the rows that train, validate and test.

    Args:
        dataset: `digits`, or a folder or `s3://` prefix with Parquet or Arrow files with columns `image` and `label`,
            one folder of images per class, a list of images, WebDataset tars, IDX files or CIFAR's Python files.
        split: Folder with the chosen rows, class counts, fingerprint and, if they are small, the images.
        page: Page with some images of each class and the number of images per class.
        metrics: Number of rows in each part.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `split` settings.
        seed: Seed of the random choice.
        fingerprint: A text that changes when the dataset does, so that Kubeflow's cache never gives the split of other
            images; the step does not read it.
    """
    import shutil
    from pathlib import Path

    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        figures = steps.split(dataset, split.path, recipe, settings, seed)
    for name, value in figures.items():
        metrics.log_metric(name, value)
    shutil.copyfile(Path(split.path) / "dataset.html", page.path)
