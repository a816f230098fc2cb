"""The third step: cut the network at the budget."""

from kfp.dsl import Artifact, Input, Metrics, Output
from pfs_components.base import component


@component
def extract_structure(
    gates: Input[Artifact],
    structures: Output[Artifact],
    metrics: Output[Metrics],
    budget: str = "macs=0.5",
    recipe: str = "",
    settings: dict = {},
):
    """Keep the channels with the largest gates within the budget.

    Args:
        gates: Output of the search step.
        structures: Folder with `structure.json`, and with `uniform.json` and `dense.json` to compare with.
        metrics: MACs and parameters of the pruned network, and its distance to the budget.
        budget: A share of the dense network's cost, e.g. `macs=0.5` or `latency=0.6`, or a count, e.g. `macs=20M`.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        settings: Changes to the recipe's `extract` settings, e.g. `{"channel_multiple": 8}`.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        figures = steps.extract(gates.path, structures.path, budget, recipe, settings)
    for name, value in figures.items():
        metrics.log_metric(name, value)
