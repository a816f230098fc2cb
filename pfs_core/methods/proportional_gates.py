"""Shares of channels as gates, for methods that choose how much each group keeps and not which channels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph


def proportional_gates(
    graph: ChannelGraph, expanded: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, Tensor]:
    """Falling gates in (0, 1] whose cut at any budget has widths in the proportions of ``shares``.

    The i-th of n channels of a group with the share u gets the gate u n / i, scaled: a cut at the gate t then keeps a
    share of u / t of every group, as far as it has so many channels.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before the cut.
        shares: above 0, for each prunable group.
    """
    gates = {}
    for group in graph.prunable():
        count = expanded[group.name] // group.blocks
        gates[group.name] = shares[group.name] * count / torch.arange(1, count + 1, dtype=torch.float32)
    largest = max(float(scores.max()) for scores in gates.values())
    return {name: scores / largest for name, scores in gates.items()}
