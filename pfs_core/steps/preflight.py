"""What can be said of a request before anything is started."""

from collections.abc import Mapping
from typing import Any

from pfs_core.errors import UserError


def check(request: Mapping[str, Any]) -> None:
    """Raise UserError for what is wrong with a request, in a second or two and without reading images.

    Args:
        request: a pipeline's arguments: ``model``, ``model_settings``, ``dataset``, ``budgets``, ``recipe``,
            ``networks``, ``registered_model`` if it has one, the settings of every stage, e.g.
            ``search_settings``, and ``search_budget`` with a true ``one_search`` where one search is for all budgets.
    """
    from pfs_core.config.overrides import STAGES, whole_numbers
    from pfs_core.config.recipes import default_recipe, recipe
    from pfs_core.config.spec import Budget, ModelSpec
    from pfs_core.data.open import check_dataset
    from pfs_core.methods.registry import METHODS, method_config
    from pfs_core.models import build_model
    from pfs_core.structure import FILES

    config = recipe(request["recipe"] or default_recipe(request["dataset"]))
    stages = {stage: config.stage(stage, request[f"{stage}_settings"]) for stage in STAGES if stage != "search"}
    method = METHODS[method_config(config, request["search_settings"]).method]
    inherits = stages["retrain"].start == "inherited"
    if inherits and not method.trains:
        raise UserError(
            f"retrain.start=inherited starts from trained weights, and search.method={method.name} trains none; "
            f"choose {' or '.join(m.name for m in METHODS.values() if m.trains)}, or leave it out"
        )
    if not request["budgets"]:
        raise UserError('no budget is given; give at least one, e.g. ["macs=0.5"]')
    budgets = [Budget.from_text(text) for text in request["budgets"]]
    for i, budget in enumerate(budgets):
        if budget in budgets[:i]:
            raise UserError(f"budget {budget} is given twice")
    if request.get("one_search"):
        goal = Budget.from_text(request["search_budget"])
        if not method.any_budget and budgets != [goal]:
            raise UserError(
                f"search.method={method.name} finds widths for {goal} alone; the pipeline compare searches for each"
            )
    name = request.get("registered_model", "")
    if any(sign in name for sign in "/:"):
        raise UserError(f"the model registry takes no name with / or : in it ({name!r}); choose another")
    build_model(ModelSpec(name=request["model"], kwargs=whole_numbers(dict(request["model_settings"]))))
    check_dataset(request["dataset"])
    for network in request["networks"]:
        if network not in FILES:
            raise UserError(f"unknown network {network!r} to train; known: {', '.join(FILES)}")
    if inherits and list(request["networks"]) != ["pruned"]:
        raise UserError(
            'retrain.start=inherited fine-tunes the pruned network: networks must be ["pruned"] '
            "(pfs run: --compare none); train dense and uniform in a run of their own"
        )
    if "pruned" not in request["networks"]:
        raise UserError(f'networks {list(request["networks"])} leave out "pruned", which is what the run is for')
