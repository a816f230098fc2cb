"""Structures that need no search: the dense network, and one factor for every prunable width."""

from collections.abc import Mapping
from typing import Any

from pfs_core.channels import ChannelGraph
from pfs_core.spec import Budget, ModelSpec
from pfs_core.structure import Structure, largest_within


def dense(graph: ChannelGraph, budget: Budget, *, model: ModelSpec) -> Structure:
    """The unexpanded network itself; its budget record is that of the cost 1 it has by definition."""
    whole = Budget(metric=budget.metric, target=1.0)
    return Structure.of(model, graph, graph.widths(), whole, {"method": "dense"})


def uniform(
    graph: ChannelGraph,
    budget: Budget,
    *,
    model: ModelSpec,
    channel_multiple: int = 1,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """Every prunable width of the expanded network times one factor, the largest one within the budget.

    It starts from the same expanded network as the search, so that the two differ only in how the budget is shared
    out among the groups. Widths are rounded to the nearest multiple of ``channel_multiple``, at least one multiple.

    Raises:
        UserError: even the smallest widths are over the budget.
    """
    expanded = graph.expanded(model.expand)
    prunable = {group.name: expanded[group.name] for group in graph.prunable()}
    steps = max(prunable.values(), default=1) * 4

    def widths_at(k: int) -> dict[str, int]:
        return expanded | {name: _scaled(width, k / steps, channel_multiple) for name, width in prunable.items()}

    k = largest_within(steps, widths_at, graph, budget)
    chosen_by = {"method": "uniform", "factor": k / steps, "channel_multiple": channel_multiple}
    return Structure.of(model, graph, widths_at(k), budget, chosen_by, provenance)


def _scaled(width: int, factor: float, multiple: int) -> int:
    return min(width, max(multiple, round(width * factor / multiple) * multiple))
