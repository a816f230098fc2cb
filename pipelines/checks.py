"""What can be said of a run's parameters before it is sent, with the code that its first step checks them with."""

from collections.abc import Mapping
from typing import Any

from pfs_pipelines.compiled import Package
from pfs_pipelines.model_commands import listed
from pfs_pipelines.packages import PIPELINES
from pfs_pipelines.pools import form_name

from pfs_core.config.recipes import RECIPES
from pfs_core.config.request import CompressRequest
from pfs_core.errors import UserError, did_you_mean
from pfs_core.registry.work import check_limits
from pfs_core.steps.lifecycle import check_comparison
from pfs_core.steps.preflight import check_settings, check_train_job
from pfs_core.storage import open_storage


def check_parameters(package: Package, given: Mapping[str, Any]) -> None:
    """Check the parameters of a run of one of this project's pipelines; of other pipelines nothing is known.

    Neither the dataset nor the network is looked at: the cluster may reach what this machine does not.

    Args:
        package: the pipeline.
        given: the parameters that are not the package's defaults.

    Raises:
        UserError: the run could only fail.
    """
    defaults = {name: defined.get("defaultValue") for name, defined in package.parameters.items()}
    values = {**defaults, **given}
    if package.name.replace("-", "_") not in PIPELINES:
        return
    if "request_files" in values:
        _check_new_models(values)
    if "model" not in values:
        return
    if "methods" in values and form_name("method_settings") in values:
        check_comparison(
            values["dataset"],
            values["budgets"],
            values["methods"],
            values["seeds"],
            values["recipe"],
            values[form_name("method_settings")],
        )
    asked = {name: values[form_name(name)] for name in CompressRequest.model_fields if form_name(name) in values}
    if "budget" in values:
        asked["budgets"] = [values["budget"]]
    if "split_seed" in values:
        asked["seed"] = values["split_seed"]
    check_settings(CompressRequest.parse({**asked, "one_search": "search_budget" in values}, "the run"))
    _check_names(values["model"], values["dataset"])
    if values.get("train_job"):
        check_train_job(values["train_job"])


def _check_names(model: str, dataset: str) -> None:
    """Check the name of a network that comes with pfs, which has no colon, and the form of a dataset's address."""
    known = [row["model"] for row in listed("zoo")]
    if ":" not in model and model not in known:
        others = "torchvision:NAME, timm:NAME, package.module:factory"
        raise UserError(f"unknown model {model!r}{did_you_mean(model, known)}; known: {', '.join(known)}, {others}")
    open_storage(dataset)


def _check_new_models(values: Mapping[str, Any]) -> None:
    """Check the parameters of ``compress_new_models``, whose settings are for requests of any recipe."""
    check_limits(values["limit"], values["claim_hours"])
    if values["request_files"]:
        open_storage(values["request_files"])
    settings = {name: values[form_name(name)] for name in CompressRequest.model_fields if form_name(name) in values}
    refusals = []
    for recipe in RECIPES:
        asked = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"], "recipe": recipe, **settings}
        try:
            check_settings(CompressRequest.parse(asked, "the run"))
        except UserError as e:
            refusals.append(e)
    if len(refusals) == len(RECIPES):
        raise refusals[0]
