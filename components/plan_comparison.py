"""Before the first step of a comparison."""

from typing import List

from components.base import component


@component
def plan_comparison(
    model: str,
    dataset: str,
    budget: str,
    methods: List[str],
    seeds: List[int],
    recipe: str = "",
    method_settings: dict = {},
) -> List[dict]:
    """Say what is to be searched with what, and open the comparison's run in MLflow.

    Args:
        model: Name of a network.
        dataset: Address of the dataset.
        budget: What every method cuts to.
        methods: Ways of choosing a structure.
        seeds: Each method is run with each.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        method_settings: Changes to the recipe's `search` settings, by method.

    Returns:
        A `method`, a `seed` and the search's `settings`, for each method and seed.
    """
    from pfs_core import steps
    from pfs_core.progress import user_errors

    with user_errors():
        return steps.plan_comparison(model, dataset, budget, methods, seeds, recipe, method_settings)
