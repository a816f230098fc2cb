"""Algorithm 1 of Wang et al. (2020), solved exactly instead of by bisection over built networks."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError


class CostModel(NamedTuple):
    """What widths cost in the metric of a budget.

    Attributes:
        cost: of some widths, which must not fall as widths grow.
        dense: that of the unexpanded network.
        text: an amount with its unit.
        advice: what else to try where no structure is cheap enough.
    """

    cost: Callable[[Mapping[str, int]], float]
    dense: float
    text: Callable[[float], str]
    advice: str = ""


def closed_form(graph: ChannelGraph, metric: str) -> CostModel:
    """MACs or parameters by the graph."""
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
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
) -> tuple[dict[str, int], float]:
    """The widths that the largest gates within the budget keep, and the smallest gate kept.

    The cost cannot fall as more channels are kept, so the longest prefix within the budget is found by bisection.

    Args:
        graph: the channel graph of the unexpanded network.
        gates: float [expanded gates] for each prunable group.
        budget: relative to the unexpanded network.
        expanded: the width of every group before the cut.
        channel_multiple: kept widths are multiples of this, but never more than there is.
        floor: the share of its unexpanded width that every prunable group keeps at least.
        cost_model: of widths in the budget's metric; None for MACs and parameters, which the graph knows.

    Raises:
        UserError: the budget is over the dense network, or under the smallest structure.
    """
    cost_model = cost_model or closed_form(graph, budget.metric)
    check_reachable(graph, expanded, budget, channel_multiple, floor, cost_model)
    groups = graph.prunable()
    values, owners = ranked_channels({group.name: gates[group.name] for group in groups})
    limit = budget.limit(cost_model.dense)
    steps = [math.lcm(channel_multiple, group.blocks) for group in groups]
    least = min_widths(graph, expanded, channel_multiple, floor)

    def widths_at(kept: int) -> dict[str, int]:
        counts = np.bincount(owners[:kept], minlength=len(groups)).tolist()
        widths = dict(least)
        for group, count, step in zip(groups, counts, steps, strict=True):
            widths[group.name] = max(least[group.name], count * group.blocks // step * step)
        return widths

    low, high = 0, len(owners)
    while low < high:
        middle = (low + high + 1) // 2
        if cost_model.cost(widths_at(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return widths_at(low), float(values[low - 1]) if low else 1.0


def min_widths(
    graph: ChannelGraph, expanded: Mapping[str, int], channel_multiple: int = 1, floor: float = 0.0
) -> dict[str, int]:
    """The smallest widths a cut may come to; those of groups that are not pruned are as expanded."""
    widths = dict(expanded)
    for group in graph.prunable():
        step = math.lcm(channel_multiple, group.blocks)
        wanted = max(1, math.ceil(floor * group.width / step - 1e-9)) * step
        widths[group.name] = min(wanted, expanded[group.name])
    return widths


def check_reachable(
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    budget: Budget,
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
) -> None:
    """Raise UserError unless the budget is at most the dense network and at least the smallest structure."""
    cost_model = cost_model or closed_form(graph, budget.metric)
    cost = cost_model.cost(min_widths(graph, expanded, channel_multiple, floor))
    if budget.fraction(cost_model.dense) > 1:
        raise UserError(
            f"budget {budget} is over the dense network's {cost_model.text(cost_model.dense)}; ask for less"
        )
    if cost > cost_model.dense:
        raise UserError(
            f"budget {budget} cannot be reached, nor can {budget.metric}=1: the smallest structure has "
            f"{cost_model.text(cost)}; lower extract.channel_multiple, extract.floor or "
            f"search.expand{cost_model.advice}"
        )
    if cost > budget.limit(cost_model.dense):
        raise UserError(
            f"budget {budget} cannot be reached; the smallest structure has {cost_model.text(cost)}, "
            f"so ask for {budget.metric}={_round_up(cost / cost_model.dense)} or more{cost_model.advice}"
        )


def ranked_channels(gates: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """All gates, largest first, as float64 ``[n]``, and the position in ``gates`` of each one's group, int64 ``[n]``.

    Among equal gates the one that is a smaller share into its own group comes first, so that a tie across groups is
    spent evenly over them.
    """
    falling = [scores.double().sort(descending=True).values.numpy() for scores in gates.values()]
    values = np.concatenate(falling)
    shares = np.concatenate([np.arange(1, len(group) + 1) / len(group) for group in falling])
    owners = np.repeat(np.arange(len(falling)), [len(group) for group in falling])
    order = np.lexsort((owners, shares, -values))
    return values[order], owners[order]


def check_gates(graph: ChannelGraph, gates: Mapping[str, Tensor], expanded: Mapping[str, int]) -> None:
    """Raise UserError unless there is one vector of finite numbers a prunable group, one for each of its gates."""
    groups = graph.prunable()
    prunable = [group.name for group in groups]
    if sorted(gates) != sorted(prunable):
        raise UserError(f"the gates are for other channel groups: {', '.join(gates)}; expected {', '.join(prunable)}")
    for group in groups:
        scores, count = gates[group.name], expanded[group.name] // group.blocks
        if scores.shape != (count,) or not scores.isfinite().all():
            raise UserError(f"the gates of {group.name!r} must be {count} finite numbers (got {list(scores.shape)})")


def equal_gates(graph: ChannelGraph, expanded: Mapping[str, int]) -> dict[str, Tensor]:
    """Gates that are all 1, for each prunable group."""
    return {group.name: torch.ones(expanded[group.name] // group.blocks) for group in graph.prunable()}


def _round_up(fraction: float) -> float:
    """``fraction`` with four decimals, rounded up so that asking for it works."""
    return int(fraction * 10_000 + 1) / 10_000
