"""The pipeline that compresses all models that ask for it in the registry; it is meant to run on a schedule."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact
from pfs_components import check_request, close_run, find_requests, finish_request
from pfs_pipelines import find_structure
from pfs_pipelines.compress import stages
from pfs_pipelines.pools import Placement, Pools, passed_on, with_form

DESCRIPTION = """Finds models in the MLflow Model Registry that ask to be compressed (tag `pfs.compress=requested`),
claims them, compresses each by *Pruning from Scratch* and registers the result as a version of `<name>-pruned`.

If no model is waiting, the run takes seconds and no GPU. Runs that overlap never take the same model."""


def define(place: Placement = Placement()) -> Any:
    """Define the ``compress_new_models`` pipeline, with its steps on the pools of ``place``."""
    find = find_structure.define(place)

    @dsl.pipeline(name="compress-one-model")
    @with_form
    def compress_one(
        model: str,
        dataset: str,
        budget: str,
        recipe: str,
        seed: int,
        registered_model: str,
        label: str,
        model_settings: dict,
        search_settings: dict,
        retrain_settings: dict,
        latency_settings: dict,
        pools: Pools = Pools(),
    ) -> Artifact:
        asked = {
            "model": model,
            "dataset": dataset,
            "recipe": recipe,
            "seed": seed,
            "model_settings": model_settings,
            "search_settings": search_settings,
            "retrain_settings": retrain_settings,
            "latency_settings": latency_settings,
        }
        check = check_request(budgets=[budget], opens_run=False, **asked)
        place.cpu(check, pools, hours=1).set_display_name("Check the request").set_caching_options(False)
        page = stages(
            place,
            pools,
            find,
            fingerprint=check.output,
            budget=budget,
            registered_model=registered_model,
            label=label,
            **asked,
        )
        return page.outputs["folder"]

    @dsl.pipeline(name="compress-new-models", display_name="Compress new models", description=DESCRIPTION)
    @with_form
    def compress_new_models(
        limit: int = 5,
        claim_hours: float = 240.0,
        request_files: str = "",
        search_settings: dict = {},
        retrain_settings: dict = {},
        latency_settings: dict = {},
        pools: Pools = Pools(),
    ) -> None:
        """Compress the models that ask for it in the MLflow Model Registry.

        Args:
            limit: Largest number of models that one run takes.
            claim_hours: Hours without a result after which another run may take a model.
            request_files: A folder or s3:// prefix of request files that are put into the registry first; empty for
                none.
            search_settings: Changes to the recipe's search settings, for all models.
            retrain_settings: Changes to the recipe's retrain settings, for all models.
            latency_settings: Changes to the recipe's latency settings, for all models.
        """
        closing = (
            place.cpu(close_run(gives_back=True), pools, hours=1)
            .set_display_name("Close the run")
            .set_caching_options(False)
        )
        with dsl.ExitHandler(closing, name="Compress new models"):
            requests = find_requests(limit=limit, claim_hours=claim_hours, request_files=request_files)
            place.cpu(requests, pools, hours=1).set_display_name("Find requests").set_caching_options(False)
            with dsl.ParallelFor(requests.output, name="Each model", parallelism=place.parallelism) as request:
                compression = compress_one(
                    model=request.model,
                    dataset=request.dataset,
                    budget=request.budget,
                    recipe=request.recipe,
                    seed=request.seed,
                    registered_model=request.registered_model,
                    label=request.label,
                    settings_model=request.model_settings,
                    settings_search=search_settings,
                    settings_retrain=retrain_settings,
                    settings_latency=latency_settings,
                    **passed_on(pools),
                )
                compression.set_display_name("Compress the model")
                finish = finish_request(request=request, report=compression.output, claim_hours=claim_hours)
                place.cpu(finish, pools, hours=1).set_display_name("Finish the request").set_caching_options(False)

    return compress_new_models
