"""The groups of a network as AMC's agent walks them: what it sees, and what it may do without losing the budget."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.methods.proportional_gates import proportional_gates
from pfs_core.structure.budget_cut import closed_form, min_widths, prune_to_budget

STATE = 10
"""Numbers of a state."""


class PruningEnv:
    """The prunable groups in forward order. Widths chosen so far and widths as small as may be are within the budget.

    Attributes:
        groups: names.

    Args:
        model: the network at ``expanded`` widths.
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before anything is chosen.
        budget: of MACs or parameters, reachable with every group at ``lowest``.
        lowest: the smallest share of its unexpanded width that a group keeps.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, expanded: Mapping[str, int], budget: Budget, lowest: float
    ) -> None:
        self._graph, self._expanded = graph, dict(expanded)
        self._blocks = {group.name: group.blocks for group in graph.groups}
        self.groups = [group.name for group in graph.prunable()]
        self._least = min_widths(graph, expanded, floor=lowest)
        self._cost_model = closed_form(graph, budget.metric)
        self._budget, self._limit = budget, budget.limit(self._cost_model.dense)
        self._fixed = _fixed_features(model, graph, expanded)
        self._macs = graph.cost(expanded).macs
        self._behind = [self._share_behind(i) for i in range(len(self.groups))]

    def state(self, chosen: Mapping[str, int], last: float) -> list[float]:
        """What the agent sees at the first group without a width.

        Scaled to [0, 1] over the groups: their position, whether a depthwise convolution is among their layers, the
        inputs and the outputs of the layer that writes them, its stride and kernel, their parameters. Then the share
        of the MACs that is gone, the share that the groups after this one take part in, and the last action.
        """
        place = len(chosen)
        gone = 1 - self._graph.cost(self._expanded | dict(chosen)).macs / self._macs
        return [*self._fixed[place], gone, self._behind[place], last]

    def width(self, chosen: Mapping[str, int], share: float) -> int:
        """What the first group without a width gets if the agent wants it to keep a share of its channels.

        It is less where only that leaves the budget reachable.
        """
        name = self.groups[len(chosen)]
        blocks, before = self._blocks[name], self._least | dict(chosen)
        least = self._least[name] // blocks
        wanted = max(least, round(share * self._expanded[name] / blocks))
        low, high = least, min(wanted, self._expanded[name] // blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost_model.cost(before | {name: middle * blocks}) <= self._limit:
                low = middle
            else:
                high = middle - 1
        return low * blocks

    def share(self, chosen: Mapping[str, int]) -> float:
        """The share of its channels that the last group with a width keeps."""
        name = self.groups[len(chosen) - 1]
        return chosen[name] / self._expanded[name]

    def gates(self, chosen: Mapping[str, int]) -> dict[str, Tensor]:
        """Falling gates of each group, of which a cut at any budget keeps widths in the proportions of ``chosen``."""
        shares = {name: width / self._expanded[name] for name, width in chosen.items()}
        return proportional_gates(self._graph, self._expanded, shares)

    def filled(self, chosen: Mapping[str, int]) -> dict[str, int]:
        """The widths of all groups at the budget: what a choice leaves of it goes to all groups in proportion."""
        return prune_to_budget(self._graph, self.gates(chosen), self._budget, self._expanded)[0]

    def _share_behind(self, place: int) -> float:
        later = {name: self._least[name] for name in self.groups[place + 1 :]}
        return 1 - self._graph.cost(self._expanded | later).macs / self._macs


def _fixed_features(model: nn.Module, graph: ChannelGraph, expanded: Mapping[str, int]) -> list[list[float]]:
    """What the agent sees of each prunable group from the start, each number scaled to [0, 1] over the groups."""
    rows = []
    inputs = {axis.module: axis for axis in graph.axes if axis.role == "reads"}
    for place, group in enumerate(graph.prunable()):
        members = graph.members(group.name)
        writer = next(module for module, role in members if role == "writes")
        layer: Any = model.get_submodule(writer)
        slope = graph.cost(expanded).params - graph.cost({**expanded, group.name: group.blocks}).params
        rows.append(
            [
                place,
                float(any(role == "depthwise" for _, role in members)),
                sum(repeat * expanded[name] for name, repeat in inputs[writer].segments) if writer in inputs else 0,
                expanded[group.name],
                _first(getattr(layer, "stride", 1)),
                _first(getattr(layer, "kernel_size", 1)),
                slope,
            ]
        )
    table = np.array(rows, dtype=float)
    spread = table.max(axis=0) - table.min(axis=0)
    return ((table - table.min(axis=0)) / np.where(spread > 0, spread, 1)).tolist()


def _first(value: Any) -> int:
    return value[0] if isinstance(value, tuple) else value
