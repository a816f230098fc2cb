"""The second step: choose channels, by Pruning from Scratch or another method."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Output
from pfs_components.base import component


@component
def search_gates(
    model: str,
    split: Input[Dataset],
    gates: Output[Artifact],
    metrics: Output[Metrics],
    budget: str = "macs=0.5",
    recipe: str = "",
    settings: dict = {},
    model_settings: dict = {},
    seed: int = 0,
):
    """Choose channels: learn one gate per channel on frozen random weights, or use another method.

    Args:
        model: Name of a network: `resnet20`, `torchvision:resnet18`, `timm:efficientnet_b0`, `package.module:factory`.
        split: Output of the split step.
        gates: Folder with one vector of gates per channel group and the history of the search.
        metrics: Validation accuracy of the chosen gates, and duration and peak memory of the search.
        budget: Budget that the network will be cut to, e.g. `macs=0.5`.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `search` settings, e.g. `{"method": "random"}`.
        model_settings: Keyword arguments of the network, e.g. `{"width": 32}`.
        seed: Seed of the random weights and of the order of the images.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors
    from pfs_core.runtime.supervise import supervised

    def work() -> dict:
        return steps.search(model, split.path, gates.path, budget, recipe, settings, model_settings, seed)

    with user_errors():
        figures = supervised(work)
    for name, value in figures.items():
        metrics.log_metric(name, value)
