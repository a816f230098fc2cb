"""Before the first step of a comparison."""

from typing import List

from pfs_components.base import component


@component
def plan_comparison(
    model: str,
    dataset: str,
    budgets: List[str],
    methods: List[str],
    seeds: List[int],
    recipe: str = "",
    method_settings: dict = {},
) -> List[dict]:
    """Say what is to be searched with what, and open the comparison's run in MLflow.

    Args:
        model: Name of a network.
        dataset: Address of the dataset.
        budgets: What every method cuts to.
        methods: Ways of choosing a structure.
        seeds: Each method is run with each at every budget.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        method_settings: Changes to the recipe's `search` settings, by method.

    Returns:
        A `method`, a `budget`, a `seed` and the search's `settings`, for each of these together.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        return steps.plan_comparison(model, dataset, budgets, methods, seeds, recipe, method_settings)
