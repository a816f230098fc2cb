"""What a pipeline does before and after its steps: checks, plans, claims, finishes and closes."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_core.config.overrides import Settings, recipe_for, whole_numbers
from pfs_core.config.request import DEFAULT_METHOD, CompressRequest
from pfs_core.config.seed import check_seed
from pfs_core.errors import UserError, did_you_mean
from pfs_core.methods.registry import method_config, method_named
from pfs_core.tracking import mark_finished

if TYPE_CHECKING:
    from pfs_core.registry.request import Request

MOST_SEARCHES = 45
"""The searches of a comparison whose steps fit into one workflow: Kubernetes keeps a workflow's status in 1 MiB."""
ENDED = {"SUCCEEDED": True, "COMPLETE": True, "RUNNING": None}
"""Whether a pipeline in this state has succeeded, by the states that kfp.local and Kubeflow's driver write.

None is undecided: the driver leaves RUNNING after a loop over nothing, after steps that all came from the cache, and
after a pod was killed because it ran out of memory.
"""


def check(request: CompressRequest, opens_run: bool = True, train_job: Settings | None = None) -> str:
    """Check a request with :func:`pfs_core.steps.preflight.check` and open the pipeline's run in MLflow.

    Args:
        request: what the pipeline was asked for.
        opens_run: whether the run is of this request alone; otherwise another step opens it.
        train_job: the settings of the TrainJob that will train, if one will.

    Returns:
        A text that changes whenever the dataset changes.

    Raises:
        UserError: the request cannot be carried out.
    """
    from pfs_core.data.open import content_of
    from pfs_core.steps.preflight import check as check_request
    from pfs_core.steps.preflight import check_manifest

    if train_job:
        check_manifest(train_job)
    check_request(request)
    content = content_of(request.dataset)
    if opens_run:
        budgets = " ".join(request.budgets)
        tags = {
            "model": request.model,
            "seed": request.seed,
            "dataset": request.dataset,
            "budget": budgets,
            "method": request.method,
        }
        unused = {"registered_model"} if request.one_search else {"registered_model", "one_search", "search_budget"}
        _open(_title(request), {**request.model_dump(exclude=unused), "budgets": budgets}, tags)
    return content


def _open(name: str, params: Mapping[str, Any], about: Mapping[str, Any] = {}) -> None:
    """Open the pipeline's run in MLflow, and close what earlier ones have left open."""
    from pfs_core.tracking import open_pipeline
    from pfs_core.tracking.leftover import close_ended

    open_pipeline(name, params, about)
    close_ended()


def _title(request: CompressRequest) -> str:
    """Return the name of the request's run in MLflow, e.g. ``resnet20 macs=0.5 seed 0``."""
    words = [request.model, *request.budgets]
    if request.method != DEFAULT_METHOD:
        words.append(request.method)
    return " ".join([*words, f"seed {request.seed}"])


def plan_comparison(
    model: str,
    dataset: str,
    budgets: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    recipe_name: str = "",
    settings: Mapping[str, Settings] | None = None,
) -> list[dict[str, Any]]:
    """Plan the searches of a comparison, one per method, budget and seed, and open its run in MLflow.

    Args:
        model: the name of the network.
        dataset: the address of the dataset.
        budgets: the budgets to compare at.
        methods: the names of the methods to compare.
        seeds: the seeds to search and train with.
        recipe_name: the name of a recipe; empty for the one that suits the dataset.
        settings: changes to the recipe's search settings, by method.

    Returns:
        ``method``, ``budget``, ``seed`` and ``settings`` of each search.

    Raises:
        UserError: a method or seed is missing, unknown or named twice, or a method has no such settings.
    """
    settings = settings or {}
    changes = check_comparison(dataset, budgets, methods, seeds, recipe_name, settings)
    tags = {"model": model, "dataset": dataset, "budget": " ".join(budgets), "method": " ".join(methods)}
    more = {"recipe": recipe_name, "seeds": " ".join(map(str, seeds)), "method_settings": settings}
    _open(f"compare {model} {tags['budget']}", {**tags, **more}, tags)
    return [
        {"method": method, "budget": budget, "seed": seed, "settings": changes[method]}
        for method, budget, seed in product(methods, budgets, seeds)
    ]


def check_comparison(
    dataset: str,
    budgets: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    recipe_name: str,
    settings: Mapping[str, Settings],
) -> dict[str, dict[str, Any]]:
    """Check the methods and seeds of a comparison; arguments as for :func:`plan_comparison`.

    Returns:
        The settings of the search of each method.

    Raises:
        UserError: a method or seed is missing, unknown or named twice, a method has no such settings, or there are too
            many of them.
    """
    for method in methods:
        method_named(method)
    for seed in whole_numbers(list(seeds)):
        check_seed(seed)
    for what, values in (("method", methods), ("seed", seeds)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"name each {what} once, and at least one {what} (got {list(values)})")
    for method, changed in settings.items():
        _check_changes(method, changed, methods)
    if (searches := len(methods) * len(budgets) * len(seeds)) > MOST_SEARCHES:
        raise UserError(
            f"{searches} searches (methods x budgets x seeds) are more than the {MOST_SEARCHES} whose steps fit into "
            "one workflow of Kubeflow; compare some of them a run, and put the runs side by side with pfs compare"
        )
    changes = {method: {**settings.get(method, {}), "method": method} for method in methods}
    for method in methods:
        method_config(recipe_for(recipe_name, dataset), changes[method])
    return changes


def _check_changes(method: str, values: object, methods: Sequence[str]) -> None:
    """Check that changes to the settings of a method are an object, and for a method of the comparison."""
    if method not in methods:
        hint = did_you_mean(method, methods)
        raise UserError(f"method_settings names {method!r}{hint}, which is not one of the methods {list(methods)}")
    if not isinstance(values, Mapping):
        wanted = f'an object of settings, e.g. {{"{method}": {{"expand": 1.5}}}}'
        raise UserError(f"method_settings of {method!r} must be {wanted} (got {values!r})")
    if (named := values.get("method", method)) != method:
        raise UserError(f"method_settings of {method!r} name another method, {named!r}; leave that out")


def check_waiting(request: "Request") -> None:
    """Check that a request in the registry can be carried out; UserError says why not."""
    from pfs_core.steps.preflight import check as check_request

    check_request(request.to_compress_request())


def find_requests(limit: int, claim_hours: float, files: str = "") -> list[dict[str, Any]]:
    """Open the pipeline's run in MLflow and claim requests that wait in the registry.

    Args:
        limit: the largest number of requests to claim.
        claim_hours: the number of hours after which a claim without a result expires.
        files: a folder or ``s3://`` prefix of request files, which are put into the registry first; empty for none.

    Returns:
        The claimed requests, as :func:`pfs_core.registry.work.find` describes them.

    Raises:
        UserError: there is no MLflow server or no pipeline run, a number is out of range, or there is no folder of
            that name.
    """
    from pfs_core.registry.specs import register_files
    from pfs_core.registry.work import claimant, find

    run = claimant()
    _open("compress new models", {"limit": limit, "claim_hours": claim_hours, "request_files": files})
    if files:
        register_files(files, run)
    found = find(limit, claim_hours, check_waiting)
    mark_finished()  # if a model is not finished, its claim says so
    return found


def finish_request(request: Mapping[str, Any], report_dir: str | Path, claim_hours: float) -> bool:
    """Record the result in a ``report`` folder on the model version that asked for it.

    Returns:
        Whether it was recorded, which it is not where another run has claimed or finished the request
        (:func:`pfs_core.registry.work.finish`).
    """
    from pfs_core.registry.work import finish
    from pfs_core.storage.artifacts import read_json

    summary = read_json(Path(report_dir) / "report.json")
    return finish(whole_numbers(dict(request)), summary["registered"], summary["figures"], claim_hours)


def close(state: str, gives_back: bool = False) -> None:
    """Close the pipeline's run in MLflow, and remove the checkpoints of its steps unless it has failed.

    Of one that somebody has ended, Kubeflow says to its last step that it has failed, and its steps had no time to say
    otherwise; so Kubeflow's API is asked about one that has not succeeded.

    Args:
        state: the state of the pipeline, in the words of Kubeflow.
        gives_back: whether to end the run's claims in the registry; a run that still has some has failed.
    """
    from pfs_core.registry.work import give_back
    from pfs_core.tracking import close_pipeline
    from pfs_core.tracking.leftover import close_ended
    from pfs_core.training.finished import remove_left

    succeeded = ENDED.get(state, False)
    if succeeded is not False:
        remove_left()
    try:
        if gives_back and give_back("the run ended without a result"):
            succeeded = False
    finally:
        if not succeeded:
            close_ended()
        close_pipeline(succeeded)
