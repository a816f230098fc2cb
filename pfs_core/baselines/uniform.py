"""Structures that need no search: the dense network, and one factor for every prunable width."""

from collections.abc import Mapping
from typing import Any

import torch

from pfs_core.channels import ChannelGraph
from pfs_core.spec import Budget, ModelSpec
from pfs_core.structure import Structure, cut


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
    """Every prunable width of the expanded network times one factor, as large as the budget allows.

    It is what :func:`~pfs_core.structure.extract` makes of gates that are all equal, so that it starts from the same
    expanded network as a search, meets the budget as closely, and differs only in how the budget is shared out.

    Raises:
        UserError: even the smallest widths are over the budget.
    """
    expanded = graph.expanded(model.expand)
    equal = {group.name: torch.ones(expanded[group.name]) for group in graph.prunable()}
    widths, _ = cut(graph, equal, budget, expanded, channel_multiple)
    chosen_by = {"method": "uniform", "channel_multiple": channel_multiple}
    return Structure.of(model, graph, widths, budget, chosen_by, provenance)
