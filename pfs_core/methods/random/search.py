"""The random baseline: every prunable group draws the share of its channels that it keeps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.methods.context import SearchContext
from pfs_core.methods.proportional_gates import proportional_gates
from pfs_core.methods.random.config import RandomConfig
from pfs_core.methods.result import MethodResult


def run(context: SearchContext) -> MethodResult:
    """Draw the gates with the seed of the search."""
    config = context.config_as(RandomConfig)
    return MethodResult(random_gates(context.graph, context.widths, config.lowest, context.seed))


def random_gates(graph: ChannelGraph, expanded: Mapping[str, int], lowest: float, seed: int) -> dict[str, Tensor]:
    """Draw a share from [``lowest``, 1] for each prunable group, and express the shares as gates.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before the cut.
        lowest: the smallest share, in (0, 1).
        seed: the seed of the draw.

    Returns:
        ``{group: float32 [gates]}``; a cut at any budget keeps widths in the proportions that were drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = {}
    for group in graph.prunable():
        shares[group.name] = lowest + (1 - lowest) * float(torch.rand(1, generator=generator))
    return proportional_gates(graph, expanded, shares)
