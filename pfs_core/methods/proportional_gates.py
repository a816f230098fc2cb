"""Shares of channels as gates, for methods that choose how many channels each group keeps rather than which ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph


def proportional_gates(
    graph: ChannelGraph, expanded: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, Tensor]:
    """Express shares as gates, such that a cut at any budget keeps widths in the proportions of ``shares``.

    Channel i (counted from 1) of the n channels of a group with share u gets the gate u * n / i. A threshold t then
    keeps the first u * n / t channels of each group: the widths are in the proportions u * n for every t, until a group
    runs out of channels. Finally all gates are divided by the largest one, which changes no proportion.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before the cut.
        shares: the share of its channels that each prunable group should keep, above 0.

    Returns:
        ``{group: float32 [gates]}`` in (0, 1], falling within each group.
    """
    gates = {}
    for group in graph.prunable():
        count = expanded[group.name] // group.per_gate
        gates[group.name] = shares[group.name] * count / torch.arange(1, count + 1, dtype=torch.float32)
    largest = max(float(scores.max()) for scores in gates.values())
    return {name: scores / largest for name, scores in gates.items()}
