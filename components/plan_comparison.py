"""The first step of a comparison: list its searches."""

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
    """List the searches of the comparison, and open its run in MLflow.

    Args:
        model: Name of a network.
        dataset: Address of the dataset.
        budgets: Budgets that every method cuts to.
        methods: Methods of choosing a structure, by name.
        seeds: Seeds that every method runs with at every budget.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        method_settings: Changes to the recipe's `search` settings, by method.

    Returns:
        The `method`, `budget`, `seed` and `settings` of each search.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        return steps.plan_comparison(model, dataset, budgets, methods, seeds, recipe, method_settings)
