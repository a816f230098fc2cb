"""What a pipeline does before its steps and after them: check and plan, claim and finish, close."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_core.config.overrides import Settings, chosen, whole_numbers
from pfs_core.errors import UserError
from pfs_core.methods.registry import method_config
from pfs_core.tracking import mark_finished

if TYPE_CHECKING:
    from pfs_core.registry.request import Request

ENDED = {"SUCCEEDED": True, "COMPLETE": True, "RUNNING": None}
"""Whether a pipeline in this state has succeeded, as kfp.local and as Kubeflow's driver write it. The driver leaves
RUNNING where it lost count: a loop over nothing, steps from the cache alone, a pod that was killed for its memory."""


def check(request: Mapping[str, Any], opens_run: bool = True) -> str:
    """Check a pipeline's arguments (:func:`pfs_core.steps.preflight.check`) and open its run in MLflow,
    if none has yet.

    Returns:
        What changes when the dataset does.
    """
    from pfs_core.data.open import content_of
    from pfs_core.steps.preflight import check as check_request
    from pfs_core.tracking import open_pipeline

    check_request(request)
    content = content_of(request["dataset"])
    if opens_run:
        method = request["search_settings"].get("method", "pfs")
        words = [request["model"], *request["budgets"], *([method] * (method != "pfs")), f"seed {request['seed']}"]
        name, budgets = " ".join(words), " ".join(request["budgets"])
        tags = {key: request[key] for key in ("model", "seed", "dataset")} | {"budget": budgets, "method": method}
        given = {key: value for key, value in request.items() if key not in ("one_search", "search_budget") or value}
        open_pipeline(name, {**given, "budgets": budgets}, tags)
    return content


def plan_comparison(
    model: str,
    dataset: str,
    budgets: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    recipe_name: str = "",
    settings: Mapping[str, Settings] | None = None,
) -> list[dict[str, Any]]:
    """Check what a comparison of methods asks for beside :func:`check`, and open its run in MLflow.

    Returns:
        ``method``, ``budget``, ``seed`` and the search's ``settings``, for each of these together.
    """
    from pfs_core.tracking import open_pipeline

    for what, values in (("method", methods), ("seed", seeds)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"name each {what} once, and at least one (got {list(values)})")
    settings = settings or {}
    for method in settings:
        if method not in methods:
            raise UserError(f"method_settings are of {method!r}, which is none of the methods {list(methods)}")
    changes = {method: {**settings.get(method, {}), "method": method} for method in methods}
    for method in methods:
        method_config(chosen(recipe_name, dataset), changes[method])
    tags = {"model": model, "dataset": dataset, "budget": " ".join(budgets), "method": " ".join(methods)}
    more = {"recipe": recipe_name, "seeds": " ".join(map(str, seeds)), "method_settings": settings}
    open_pipeline(f"compare {model} {tags['budget']}", {**tags, **more}, tags)
    return [
        {"method": method, "budget": budget, "seed": seed, "settings": changes[method]}
        for method, budget, seed in product(methods, budgets, seeds)
    ]


def check_waiting(request: "Request") -> None:
    """Raise UserError unless a request of the registry can be carried out."""
    from pfs_core.steps.preflight import check as check_request

    check_request(request.arguments())


def find_requests(limit: int, claim_hours: float, files: str = "") -> list[dict[str, Any]]:
    """Open the pipeline's run in MLflow and claim what waits in the registry (:func:`pfs_core.registry.work.find`).

    Request files below ``files``, if that is not empty, are put into the registry first.
    """
    import os

    from pfs_core.registry.specs import register_files
    from pfs_core.registry.work import find
    from pfs_core.tracking import open_pipeline

    open_pipeline("compress new models", {"limit": limit, "claim_hours": claim_hours, "request_files": files})
    if files:
        register_files(files, os.environ.get("KFP_RUN_ID", ""))
    found = find(limit, claim_hours, check_waiting)
    mark_finished()  # what is left to do is in the claims
    return found


def finish_request(request: Mapping[str, Any], report_dir: str | Path, claim_hours: float) -> bool:
    """Hand the result in a ``report`` folder to the request's source (:func:`pfs_core.registry.work.finish`)."""
    from pfs_core.registry.work import finish
    from pfs_core.storage.artifacts import read_json

    summary = read_json(Path(report_dir) / "report.json")
    return finish(whole_numbers(dict(request)), summary["registered"], summary["figures"], claim_hours)


def close(state: str, gives_back: bool = False) -> None:
    """End the pipeline's run in MLflow, and with ``gives_back`` the claims of what it could not finish."""
    from pfs_core.registry.work import give_back
    from pfs_core.tracking import close_pipeline

    succeeded = ENDED.get(state, False)
    try:
        if gives_back and give_back("the run ended without a result"):
            succeeded = False
    finally:
        close_pipeline(succeeded)
