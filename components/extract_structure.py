"""Step 3."""

from kfp.dsl import Artifact, Input, Metrics, Output
from pfs_components.base import component


@component
def extract_structure(
    gates: Input[Artifact],
    structures: Output[Artifact],
    metrics: Output[Metrics],
    budget: str = "macs=0.5",
    settings: dict = {},
):
    """Cut the gates at the budget, exactly.

    Args:
        gates: Output of the search step.
        structures: Folder with `structure.json`, and `uniform.json` and `dense.json` to compare with.
        metrics: MACs and parameters of the pruned network, and the gap to the budget.
        budget: Relative to the unexpanded network, e.g. `macs=0.5` or `latency=0.6`, or absolute, e.g. `macs=20M`.
        settings: Changes to the `extract` settings, e.g. `{"channel_multiple": 8}`.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        figures = steps.extract(gates.path, structures.path, budget, settings)
    for name, value in figures.items():
        metrics.log_metric(name, value)
