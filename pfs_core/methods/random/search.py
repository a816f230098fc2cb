"""Widths at random: what a search has to beat to be worth anything."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.methods.context import SearchContext
from pfs_core.methods.proportional_gates import proportional_gates
from pfs_core.methods.random.config import RandomConfig
from pfs_core.methods.result import MethodResult


def run(context: SearchContext) -> MethodResult:
    """Draw by the seed of the search."""
    config = context.config_as(RandomConfig)
    return MethodResult(random_gates(context.graph, context.widths, config.lowest, context.seed))


def random_gates(graph: ChannelGraph, expanded: Mapping[str, int], lowest: float, seed: int) -> dict[str, Tensor]:
    """Gates whose cut at any budget has widths in random proportions: each prunable group draws from [lowest, 1].

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before the cut.
        lowest: in (0, 1).
        seed: of the draw.
    """
    random = torch.Generator().manual_seed(seed)
    shares = {group.name: lowest + (1 - lowest) * float(torch.rand(1, generator=random)) for group in graph.prunable()}
    return proportional_gates(graph, expanded, shares)
