"""The fourth step: train a structure and test it."""

from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output
from pfs_components.base import component


@component
def retrain(
    structures: Input[Artifact],
    split: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    network: str = "pruned",
    recipe: str = "",
    settings: dict = {},
    seed: int = 0,
    train_job: dict = {},
) -> float:
    """Train one structure, from a fresh initialisation unless it is to be fine-tuned, and test it once.

    Args:
        structures: Output of the extract step.
        split: Output of the split step.
        model: Folder with weights (safetensors), structure, history and metrics.
        metrics: Test accuracy, MACs, parameters and peak memory.
        confusion: Number of test images by true and predicted class, for up to 100 classes.
        network: The structure to train: `pruned`, `uniform` or `dense`.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `retrain` settings.
        seed: Seed of the initial weights and of the order of the images.
        train_job: Empty to train in this step, or the settings of a TrainJob that trains on several nodes, e.g.
            `{"nodes": 2, "processes": 4, "shared": "s3://bucket/jobs", "image": "...", "secret": "..."}`.

    Returns:
        The test accuracy.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors
    from pfs_core.runtime.supervise import supervised

    def work() -> dict:
        file = steps.structure_file(structures.path, network)
        return steps.retrain(file, split.path, model.path, recipe, settings, seed, train_job)

    with user_errors():
        figures = supervised(work)
    for name, value in figures.items():
        metrics.log_metric(name, value)
    model.metadata["network"] = network
    classes, counts = steps.confusion(model.path)
    if len(classes) <= 100:
        confusion.log_confusion_matrix(classes, counts)
    return float(figures["test_accuracy"])
