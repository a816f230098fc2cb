"""Structures that need no search: dense, expanded, and one factor for every prunable width."""

from collections.abc import Mapping
from typing import Any

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.structure import Structure
from pfs_core.structure.budget_cut import CostModel, equal_gates, prune_to_budget


def dense(graph: ChannelGraph, budget: Budget, *, model: ModelSpec) -> Structure:
    """The unexpanded network itself; its budget record is that of the cost 1 it has by definition."""
    whole = Budget(metric=budget.in_macs.metric, target=1.0)
    return Structure.from_widths(model, graph, graph.widths(), whole, {"method": "dense"})


def expanded(graph: ChannelGraph, *, model: ModelSpec) -> Structure:
    """The network that the search starts from, with all its channels."""
    widths = graph.expanded(model.expand, model.expand_stream)
    whole = Budget(metric="macs", target=max(1000.0, graph.cost(widths).macs))
    return Structure.from_widths(model, graph, widths, whole, {"method": "expanded"})


def uniform(
    graph: ChannelGraph,
    budget: Budget,
    *,
    model: ModelSpec,
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """Every prunable width of the expanded network times one factor, as large as the budget allows.

    It is what :func:`~pfs_core.structure.extract` makes of gates that are all equal, so that it starts from the same
    expanded network as a search, meets the budget as closely, and differs only in how the budget is shared out.

    Raises:
        UserError: even the smallest widths are over the budget.
    """
    expanded = graph.expanded(model.expand, model.expand_stream)
    widths, _ = prune_to_budget(
        graph, equal_gates(graph, expanded), budget, expanded, channel_multiple, floor, cost_model
    )
    chosen_by = {"method": "uniform", "channel_multiple": channel_multiple, "floor": floor}
    return Structure.from_widths(model, graph, widths, budget, chosen_by, provenance, cost_model)
