"""Step 1."""

from kfp.dsl import Dataset, Metrics, Output

from components.base import component


@component
def split_data(
    dataset: str,
    split: Output[Dataset],
    metrics: Output[Metrics],
    recipe: str = "",
    settings: dict = {},
    seed: int = 0,
):
    """Choose the rows that train, validate and test.

    Args:
        dataset: `digits`, or a folder of Parquet files with columns `image` and `label`.
        split: Folder with the chosen rows, class counts, fingerprint and the images.
        metrics: Rows in each part.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `split` settings.
        seed: Seed of the random choice.
    """
    from pfs_core import steps
    from pfs_core.progress import user_errors

    with user_errors():
        figures = steps.split(dataset, split.path, recipe, settings, seed)
    for name, value in figures.items():
        metrics.log_metric(name, value)
