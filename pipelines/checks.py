"""What can be said of a run's parameters before it is sent, with the code that its first step checks them with."""

from collections.abc import Mapping
from typing import Any

from pfs_pipelines.compiled import Package
from pfs_pipelines.packages import PIPELINES
from pfs_pipelines.pools import form_name

from pfs_core.config.request import CompressRequest
from pfs_core.steps.lifecycle import check_comparison
from pfs_core.steps.preflight import check_settings


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
    if package.name.replace("-", "_") not in PIPELINES or "model" not in values:
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
