"""Widths at random: what a search has to beat to be worth anything."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph


def random_gates(graph: ChannelGraph, expanded: Mapping[str, int], lowest: float, seed: int) -> dict[str, Tensor]:
    """Gates whose cut at any budget has widths in random proportions.

    Each prunable group draws a share u from [lowest, 1]. Its i-th of n channels gets the gate u n / i, brought into
    (0, 1]: a cut at the gate t then keeps a share of u / t of every group, as far as it has so many channels.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before the cut.
        lowest: in (0, 1).
        seed: of the draw.
    """
    random = torch.Generator().manual_seed(seed)
    gates = {}
    for group in graph.prunable():
        count = expanded[group.name] // group.blocks
        share = lowest + (1 - lowest) * float(torch.rand(1, generator=random))
        gates[group.name] = share * count / torch.arange(1, count + 1, dtype=torch.float32)
    largest = max(float(scores.max()) for scores in gates.values())
    return {name: scores / largest for name, scores in gates.items()}
