"""Algorithm 1 of Wang et al. (2020): from gates and a budget to widths.

The paper finds a threshold on the gates by bisection, and builds a network for each threshold to count its cost. Here
the cost of any widths is known in closed form, so that the cut is exact: no further gate would fit into the budget.

In blocks (:mod:`pfs_core.structure.cut_rules`) the steps of a cut are coarse: one of a small network's layers is a
tenth of its time. So what comes back last may be half a block wide, where a whole one does not fit. Where a latency is
asked for, what the longest prefix leaves of it goes to the next gates that fit. That prefix makes no group narrower
where the budget grows; what goes on after it may.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.ranking import Cost, Ranking

_SHOWN = 6
"""Number of groups whose reasons a message gives."""


class CostModel(NamedTuple):
    """The cost of widths in the metric of a budget.

    Attributes:
        cost: returns the cost of widths. It must not fall when a width grows.
        dense: the cost of the unexpanded network.
        text: returns an amount with its unit, for messages.
        advice: what else a user can try where no structure is cheap enough; it follows a message.
    """

    cost: Cost
    dense: float
    text: Callable[[float], str]
    advice: str = ""


def closed_form(graph: ChannelGraph, metric: str) -> CostModel:
    """Return the cost model of ``macs`` or ``params``, which the graph knows in closed form."""
    return CostModel(
        lambda widths: getattr(graph.cost(widths), metric),
        getattr(graph.cost(), metric),
        lambda amount: f"{amount:,} {metric}",
    )


def prune_to_budget(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    expanded: Mapping[str, int],
    rules: CutRules = CutRules(),
    cost_model: CostModel | None = None,
) -> tuple[dict[str, int], float]:
    """Keep the largest gates, as many as the budget allows.

    All gates of the network are ranked together (:func:`ranked_channels`), and the longest prefix of this ranking whose
    cost is within the budget is kept. No group falls below its minimum (:meth:`CutRules.least`). Under a latency, later
    gates that still fit are kept too (:func:`fills`).

    Args:
        graph: the channel graph of the unexpanded network.
        gates: the gates of every prunable group, float [expanded gates].
        budget: the budget, relative to the unexpanded network.
        expanded: the width of every group before the cut.
        rules: which widths the cut may lead to.
        cost_model: the cost of widths in the budget's metric; None for MACs and parameters, which the graph knows.

    Returns:
        The width of every group after the cut, and the smallest gate of the prefix (1 if only the minimal widths are
        kept).

    Raises:
        UserError: the budget is over the dense network, or under the smallest structure.

    >>> from torch import nn
    >>> from pfs_core.channels import trace
    >>> layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)]
    >>> graph = trace(nn.Sequential(*layers), (3, 8, 8))
    >>> gates = {"0": torch.tensor([0.5, 0.0, 0.25, 1.0])}
    >>> prune_to_budget(graph, gates, Budget(target=0.6), graph.widths())
    ({'input': 3, '0': 2, '4': 10}, 0.5)
    """
    cost_model = cost_model or closed_form(graph, budget.metric)
    check_reachable(graph, expanded, budget, rules, cost_model)
    ranking = Ranking(graph, gates, expanded, rules)
    kept, widths = ranking.cut(cost_model.cost, budget.limit(cost_model.dense), fill=fills(budget.metric, rules.block))
    return widths, float(ranking.values[kept - 1]) if kept else 1.0


def fills(metric: str, block: int) -> bool:
    """Return whether a cut goes on with later gates that fit where the next one does not.

    So it does in blocks, whose steps are coarse, to land on a latency. A larger budget of MACs or parameters narrows no
    layer, which would not hold where later gates take the place of the next one; nor is there much left in the paper's
    cut.
    """
    return metric == "latency" and block > 1


def lower_settings(rules: CutRules) -> str:
    """Return which settings to lower for a smaller smallest structure, to follow a message; empty if there are none."""
    lower = " or ".join(_raised(rules))
    return f", or lower {lower}" if lower else ""


def _raised(rules: CutRules) -> list[str]:
    """Return the settings of the extraction that could be lowered for a smaller smallest structure."""
    settings = {"extract.floor": rules.floor, "extract.channel_multiple": rules.channel_multiple - 1}
    return [name for name, value in settings.items() if value]


def check_reachable(
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    budget: Budget,
    rules: CutRules = CutRules(),
    cost_model: CostModel | None = None,
) -> None:
    """Raise UserError unless the budget is at most the dense network and at least the smallest structure.

    Without a ``cost_model`` a latency is judged by the same fraction of the MACs.
    """
    if not graph.prunable():
        shown = [f"{group.name}: {group.reason}" for group in graph.groups[:_SHOWN]]
        more = [f"and {len(graph.groups) - _SHOWN} more"] if len(graph.groups) > _SHOWN else []
        raise UserError(f"no channel group of the network can be pruned ({'; '.join([*shown, *more])})")
    cost_model = cost_model or closed_form(graph, budget.in_macs.metric)
    cost = cost_model.cost(rules.least(graph, expanded))
    if budget.fraction(cost_model.dense) > 1:
        raise UserError(
            f"budget {budget} is over the dense network's {cost_model.text(cost_model.dense)}; ask for less"
        )
    if cost > cost_model.dense:
        lower = [*_raised(rules), *(["extract.blocks"] if rules.block > 1 else []), "search.expand"]
        raise UserError(
            f"budget {budget} cannot be reached, nor can {budget.metric}=1: the smallest structure has "
            f"{cost_model.text(cost)}; lower {', '.join(lower)} or search.expand_stream{cost_model.advice}"
        )
    if cost > budget.limit(cost_model.dense):
        raise UserError(
            f"budget {budget} cannot be reached; the smallest structure has {cost_model.text(cost)}, "
            f"so ask for {budget.metric}={_round_up(cost / cost_model.dense)} or more"
            f"{lower_settings(rules)}{cost_model.advice}"
        )


def check_gates(graph: ChannelGraph, gates: Mapping[str, Tensor], expanded: Mapping[str, int]) -> None:
    """Raise UserError unless every prunable group has one vector of finite numbers, one for each of its gates."""
    groups = graph.prunable()
    prunable = [group.name for group in groups]
    if sorted(gates) != sorted(prunable):
        raise UserError(f"the gates are for other channel groups: {', '.join(gates)}; expected {', '.join(prunable)}")
    for group in groups:
        scores, count = gates[group.name], expanded[group.name] // group.per_gate
        if scores.shape != (count,) or not scores.isfinite().all():
            raise UserError(f"the gates of {group.name!r} must be {count} finite numbers (got {list(scores.shape)})")


def equal_gates(graph: ChannelGraph, expanded: Mapping[str, int]) -> dict[str, Tensor]:
    """Return gates that are all 1, for every prunable group: the cut of these is the uniform structure."""
    return {group.name: torch.ones(expanded[group.name] // group.per_gate) for group in graph.prunable()}


def _round_up(fraction: float) -> float:
    """Return ``fraction`` with four decimals, rounded up so that a user who asks for it gets a structure."""
    return min(int(fraction * 10_000 + 1) / 10_000, 1.0)
