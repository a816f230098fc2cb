"""Structures that need no search: dense, expanded, and uniform (every prunable width times one factor)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.structure import Structure
from pfs_core.structure.budget_cut import CostModel, equal_gates, prune_to_budget
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.structure import block_record, policy_record


def dense(graph: ChannelGraph, metric: Literal["macs", "params"] = "macs", *, model: ModelSpec) -> Structure:
    """Return the structure of the unexpanded network, whose cost is by definition the fraction 1 of its own.

    Args:
        graph: its channel graph.
        metric: what the fraction is recorded of.
        model: the network.
    """
    whole = Budget(metric=metric, target=1.0)
    return Structure.from_widths(model, graph, graph.widths(), whole, {"method": "dense"})


def expanded(graph: ChannelGraph, *, model: ModelSpec) -> Structure:
    """Return the structure of the network that the search starts from, with all its channels."""
    widths = graph.expanded(model.expand, model.expand_stream)
    # A Budget below 1,000 would be a fraction.
    whole = Budget(metric="macs", target=max(1000.0, graph.cost(widths).macs))
    return Structure.from_widths(model, graph, widths, whole, {"method": "expanded"})


def uniform(
    graph: ChannelGraph,
    budget: Budget,
    *,
    model: ModelSpec,
    policy: str = "inner",
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
    block: int = 1,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """Return the structure with every prunable width of the expanded network times one factor, within the budget.

    It is what :func:`~pfs_core.structure.extract` makes of gates that are all equal. So it starts from the same
    expanded network as a search, meets the budget as closely, and differs only in how the budget is shared out. It has
    all residual branches, unless the budget cannot be met so: then those of the narrowest groups are left out.

    Args:
        graph: the channel graph of the unexpanded network, traced with ``policy``.
        budget: the budget, relative to the unexpanded network.
        model: the network, with the expansion that a search would start from.
        policy: the policy of the trace, for the record.
        channel_multiple: kept widths are multiples of this.
        floor: the fraction of its unexpanded width that every prunable group keeps at least.
        cost_model: the cost of widths in the budget's metric; None for MACs and parameters.
        block: the number of channels that the runtime computes at once.
        provenance: recorded in the structure.

    Raises:
        UserError: even the smallest widths are over the budget.
    """
    expanded = graph.expanded(model.expand, model.expand_stream)
    gates, rules = equal_gates(graph, expanded), CutRules(channel_multiple, floor, block, branches=False)
    try:
        widths, _ = prune_to_budget(graph, gates, budget, expanded, rules, cost_model)
    except UserError:
        widths, _ = prune_to_budget(graph, gates, budget, expanded, replace(rules, branches=True), cost_model)
    chosen_by = {
        "method": "uniform",
        **policy_record(policy),
        "channel_multiple": channel_multiple,
        "floor": floor,
        **block_record(block),
    }
    return Structure.from_widths(model, graph, widths, budget, chosen_by, provenance, cost_model)
