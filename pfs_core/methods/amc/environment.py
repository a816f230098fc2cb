"""The environment of AMC's agent: what it sees of a channel group, and which widths keep the budget in reach."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph
from pfs_core.channels.elements import features
from pfs_core.config.spec import Budget
from pfs_core.methods.proportional_gates import proportional_gates
from pfs_core.structure.budget_cut import closed_form, prune_to_budget
from pfs_core.structure.cut_rules import CutRules

STATE = 10
"""How many numbers a state has."""


class PruningEnv:
    """The prunable groups of a network, which the agent visits in forward order to choose a width for each.

    At every moment, the widths chosen so far are within the budget if all later groups are as narrow as they may be.

    Attributes:
        groups: names of the prunable groups, in forward order.

    Args:
        model: the network at ``expanded`` widths.
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group before anything is chosen.
        budget: a budget of MACs or parameters that can be reached with every group at ``lowest``.
        lowest: the smallest share of its unexpanded width that a group keeps.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, expanded: Mapping[str, int], budget: Budget, lowest: float
    ) -> None:
        self._graph, self._expanded = graph, dict(expanded)
        self._per_gate = {group.name: group.per_gate for group in graph.groups}
        self.groups = [group.name for group in graph.prunable()]
        self._least = CutRules(floor=lowest).least(graph, expanded)
        self._cost_model = closed_form(graph, budget.metric)
        self._budget, self._limit = budget, budget.limit(self._cost_model.dense)
        self._fixed = _fixed_features(model, graph, expanded)
        self._macs = graph.cost(expanded).macs
        self._behind = [self._share_behind(i) for i in range(len(self.groups))]

    def state(self, chosen: Mapping[str, int], last: float) -> list[float]:
        """Return what the agent sees at the next group, ``STATE`` numbers.

        They are modelled on the paper's state of a layer. The first seven are scaled to [0, 1] over the groups: the
        position of the group; whether a depthwise convolution is among its layers; the inputs and the outputs of the
        layer that writes it; the stride and the kernel of that layer; the parameters that depend on the group. Then
        come the share of the MACs that is already cut, the share that later groups can still cut, and the last action.

        Args:
            chosen: the widths of the groups before the next one.
            last: the share of its channels that the previous group keeps; 1 at the first group.
        """
        position = len(chosen)
        cut = 1 - self._graph.cost(self._expanded | dict(chosen)).macs / self._macs
        return [*self._fixed[position], cut, self._behind[position], last]

    def width(self, chosen: Mapping[str, int], share: float) -> int:
        """Return the width of the next group if the agent wants it to keep a share of its channels.

        The width is smaller than the agent wants where the budget would otherwise be out of reach, even with all later
        groups as narrow as they may be.

        Args:
            chosen: the widths of the groups before the next one.
            share: the action of the agent, in (0, 1].
        """
        name = self.groups[len(chosen)]
        per_gate, before = self._per_gate[name], self._least | dict(chosen)
        least = self._least[name] // per_gate
        wanted = max(least, round(share * self._expanded[name] / per_gate))
        low, high = least, min(wanted, self._expanded[name] // per_gate)
        # Bisection, as the cost never falls when a width grows.
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost_model.cost(before | {name: middle * per_gate}) <= self._limit:
                low = middle
            else:
                high = middle - 1
        return low * per_gate

    def share(self, chosen: Mapping[str, int]) -> float:
        """Return the share of its channels that the last group in ``chosen`` keeps."""
        name = self.groups[len(chosen) - 1]
        return chosen[name] / self._expanded[name]

    def gates(self, chosen: Mapping[str, int]) -> dict[str, Tensor]:
        """Express the chosen widths as gates, of which a cut at any budget keeps widths in the same proportions."""
        shares = {name: width / self._expanded[name] for name, width in chosen.items()}
        return proportional_gates(self._graph, self._expanded, shares)

    def filled(self, chosen: Mapping[str, int]) -> dict[str, int]:
        """Return the widths of all groups once the rest of the budget is given to the chosen groups in proportion.

        Every candidate then uses the whole budget, so that the rewards of two candidates can be compared.
        """
        return prune_to_budget(self._graph, self.gates(chosen), self._budget, self._expanded)[0]

    def _share_behind(self, position: int) -> float:
        """Return the share of the MACs that goes if all groups behind ``position`` are as narrow as they may be."""
        later = {name: self._least[name] for name in self.groups[position + 1 :]}
        return 1 - self._graph.cost(self._expanded | later).macs / self._macs


def _fixed_features(model: nn.Module, graph: ChannelGraph, expanded: Mapping[str, int]) -> list[list[float]]:
    """Return the features of each prunable group that do not depend on choices, scaled to [0, 1] over the groups."""
    rows = []
    inputs = {axis.module: axis for axis in graph.axes if axis.role == "reads"}
    modules = dict(model.named_modules())
    for position, group in enumerate(graph.prunable()):
        members = graph.members(group.name)
        writer = next(module for module, role in members if role == "writes")
        layer: Any = modules.get(writer)  # a parameter that belongs to no layer is named by its own path
        params = graph.cost(expanded).params - graph.cost({**expanded, group.name: group.per_gate}).params
        rows.append(
            [
                position,
                float(any(role == "depthwise" for _, role in members)),
                features(inputs[writer].segments, expanded) if writer in inputs else 0,
                expanded[group.name],
                _first(getattr(layer, "stride", 1)),
                _first(getattr(layer, "kernel_size", 1)),
                params,
            ]
        )
    table = np.array(rows, dtype=float)
    spread = table.max(axis=0) - table.min(axis=0)
    scaled = (table - table.min(axis=0)) / np.where(spread > 0, spread, 1)  # a feature equal for all groups becomes 0
    result: list[list[float]] = scaled.tolist()
    return result


def _first(value: Any) -> int:
    number: int = value[0] if isinstance(value, tuple) else value
    return number
