"""The step that checks a request before any other step starts."""

from typing import List

from pfs_components.base import component


@component
def check_request(
    model: str,
    dataset: str,
    budgets: List[str],
    networks: List[str] = ["pruned", "dense"],
    recipe: str = "",
    seed: int = 0,
    model_settings: dict = {},
    split_settings: dict = {},
    search_settings: dict = {},
    extract_settings: dict = {},
    retrain_settings: dict = {},
    latency_settings: dict = {},
    search_budget: str = "",
    one_search: bool = False,
    opens_run: bool = True,
    train_job: dict = {},
) -> str:
    """Check what can be checked before a GPU is asked for, and open the run in MLflow.

    Args:
        model: Name of a network.
        dataset: Address of the dataset.
        budgets: What the network will be cut to.
        networks: Which networks will be trained.
        recipe: Name of a recipe; empty for the one that suits the dataset.
        seed: Seed of the run.
        model_settings: Keyword arguments of the network.
        split_settings: Changes to the recipe's `split` settings.
        search_settings: Changes to the recipe's `search` settings.
        extract_settings: Changes to the recipe's `extract` settings.
        retrain_settings: Changes to the recipe's `retrain` settings.
        latency_settings: Changes to the recipe's `latency` settings.
        search_budget: What the one search for all budgets aims at, if there is one.
        one_search: Whether there is; otherwise every budget has a search of its own.
        opens_run: Whether the run in MLflow is this network's alone.
        train_job: Settings of the TrainJob that will train; empty for none.

    Returns:
        The dataset's fingerprint: later steps are cached by it.
    """
    from pfs_core import steps
    from pfs_core.config.request import CompressRequest
    from pfs_core.runtime.progress import user_errors

    asked = {
        "model": model,
        "dataset": dataset,
        "budgets": budgets,
        "search_budget": search_budget,
        "one_search": one_search,
        "networks": networks,
        "recipe": recipe,
        "seed": seed,
        "model_settings": model_settings,
        "split_settings": split_settings,
        "search_settings": search_settings,
        "extract_settings": extract_settings,
        "retrain_settings": retrain_settings,
        "latency_settings": latency_settings,
    }
    with user_errors():
        return steps.check(CompressRequest.parse(asked, "request"), opens_run, train_job)
