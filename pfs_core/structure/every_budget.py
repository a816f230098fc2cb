"""The cuts of the same gates at every budget, for a page on which the budget can be moved."""

from collections.abc import Mapping

from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.structure.budget_cut import CostModel, closed_form, fills
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.ranking import Ranking


def cut_at_every_percent(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    expanded: Mapping[str, int],
    metric: str,
    rules: CutRules = CutRules(),
    cost_model: CostModel | None = None,
) -> dict[int, dict[str, int]]:
    """Return what :func:`~pfs_core.structure.budget_cut.prune_to_budget` returns at the budgets 0.01, 0.02, ... 1.

    Args:
        graph: the channel graph of the unexpanded network.
        gates: the gates of every prunable group, float [expanded gates].
        expanded: the width of every group before the cut.
        metric: ``macs``, ``params`` or, with a ``cost_model``, ``latency``.
        rules: which widths the cut may lead to.
        cost_model: the cost of widths in the metric; None for MACs and parameters.

    Returns:
        ``{percent: {group: width}}``, without the percents that are under the smallest structure.
    """
    cost_model = cost_model or closed_form(graph, metric)
    ranking = Ranking(graph, gates, expanded, rules)
    smallest, kept = cost_model.cost(ranking.widths(0)), 0
    cuts = {}
    for percent in range(1, 101):
        limit = Budget.from_text(f"{metric}={percent / 100}").limit(cost_model.dense)
        if smallest <= limit:
            kept, cuts[percent] = ranking.cut(cost_model.cost, limit, kept, fills(metric, rules.block))
    return cuts
