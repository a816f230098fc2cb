"""What would be found out hours later: budgets that no cut reaches, and runtimes that are not there."""

from pfs_core.config.overrides import recipe_for
from pfs_core.config.request import CompressRequest
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig, LatencyConfig, SplitConfig
from pfs_core.data.formats.downloads import PREFIX
from pfs_core.errors import UserError
from pfs_core.methods.registry import method_config
from pfs_core.models import network_without_values, published_fields
from pfs_core.models.outputs import check_network

_MARGIN = 1.1
"""How much more a cut may cost by images of another size than a network was published for."""
_FEWEST_CLASSES = 2


def check_foreseen(request: CompressRequest) -> None:
    """Check what the request's later steps would refuse, as far as it is known without the images.

    Raises:
        UserError: no cut reaches a budget, a runtime is not installed, or small images are to be resized.
    """
    recipe = recipe_for(request.recipe, request.dataset)
    extract: ExtractConfig = recipe.stage("extract", request.extract_settings)
    latency: LatencyConfig = recipe.stage("latency", request.latency_settings)
    split: SplitConfig = recipe.stage("split", request.split_settings)
    if split.image_size and (request.dataset == "digits" or request.dataset.startswith(PREFIX)):
        raise UserError(
            f"split.image_size: {request.dataset} is a set of small images that is kept in memory as it is; "
            "set split.image_size=None, or take a recipe that sets none"
        )
    budgets = [Budget.from_text(text) for text in request.budgets]
    _check_runtimes(extract, latency, any(budget.metric == "latency" for budget in budgets))
    _check_budgets(request, extract, budgets)


def _check_runtimes(extract: ExtractConfig, latency: LatencyConfig, in_time: bool) -> None:
    from pfs_core.latency.runtimes import missing

    why = {name: reason for name in latency.runtimes if (reason := missing(name))}
    if len(why) == len(set(latency.runtimes)):
        raise UserError(f"latency.runtimes: {'; '.join(f'{name}: {reason}' for name, reason in why.items())}")
    if extract.runtime != "auto" and (in_time or extract.blocks == "auto") and (reason := missing(extract.runtime)):
        raise UserError(f"extract.runtime={extract.runtime}: {reason}")


def _check_budgets(request: CompressRequest, extract: ExtractConfig, budgets: list[Budget]) -> None:
    """Raise UserError for a budget below the smallest structure.

    Images other than the digits are not known yet. The network is then taken as it was published, for as few classes as
    there can be, and a budget refused that is out of reach by more than what their size may change.
    """
    from pfs_core.structure import unexpanded_graph
    from pfs_core.structure.budget_cut import check_reachable, lower_settings
    from pfs_core.structure.cut_rules import CutRules

    recipe = recipe_for(request.recipe, request.dataset)
    search = method_config(recipe, request.search_settings)
    split: SplitConfig = recipe.stage("split", request.split_settings)
    known = request.dataset == "digits"
    digits = {"input_shape": (split.channels or 1, 8, 8), "num_classes": 10}
    fields = digits if known else {**published_fields(request.model), "num_classes": _FEWEST_CLASSES}
    spec = ModelSpec.parse({**fields, "name": request.model, "kwargs": request.model_settings}, "model")
    try:
        if known:
            check_network(network_without_values(spec), spec)
        graph = unexpanded_graph(spec, search.policy, search.placement)
    except UserError:
        if known:
            raise
        return  # images of another size may be right
    widths = graph.expanded(search.expand, search.expand_stream)
    dense, rules = graph.cost(), CutRules(extract.channel_multiple, extract.floor, extract.block_of_smallest)
    # The search cuts to any width and leaves no branch out, whatever the extraction does.
    lowest = [graph.cost(cut.least(graph, widths)) for cut in (CutRules(), rules)]
    for budget in budgets:
        if known:
            check_reachable(graph, widths, budget)
            check_reachable(graph, widths, budget, rules)
            continue
        metric = budget.in_macs.metric
        if metric == "macs" and budget.target > 1:
            continue  # how many there are depends on the size of the images
        share = max(getattr(cost, metric) for cost in lowest) / getattr(dense, metric)
        if share > _MARGIN * budget.fraction(getattr(dense, metric)):
            raise UserError(
                f"budget {budget} cannot be reached: the smallest structure has some {share:.1%} of the "
                f"{metric}; ask for more{lower_settings(rules)}"
            )
