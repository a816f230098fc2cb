"""The fifth step: measure the networks on the CPU."""

from kfp.dsl import Artifact, Input, Metrics, Output
from pfs_components.base import component


@component
def benchmark_latency(
    structures: Input[Artifact],
    latency: Output[Artifact],
    metrics: Output[Metrics],
    recipe: str = "",
    settings: dict = {},
    seed: int = 0,
    accuracies: list = [],
):
    """Measure the pruned, the uniform, the expanded and the dense network side by side on the CPU.

    Args:
        structures: Output of the extract step.
        latency: Folder with all samples and their statistics.
        metrics: Median latencies in milliseconds, and their ratios to that of the dense network.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `latency` settings.
        seed: Seed of the order of the measurements.
        accuracies: Test accuracies of the trained networks. They change nothing, but the measurement waits for the
            trainings, which would disturb it on the same node.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        files = [steps.structure_file(structures.path, network) for network in ("pruned", "uniform")]
        figures = steps.benchmark(files, latency.path, recipe, settings, seed)
    for name, value in figures.items():
        metrics.log_metric(name, value)
