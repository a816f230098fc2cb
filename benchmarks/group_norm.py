"""Group-norm pruning of a trained network by Torch-Pruning, cut to a budget: what a user would do without a search.

The settings are those of the tool's own experiments on CIFAR-10 (Fang et al. 2023, DepGraph, without sparse learning):
the weights of all layers of a channel group are measured together by their L2 norm, relative to the mean of the group,
and the least important channels of the whole network are removed in up to 400 steps, until its MACs are within the
budget. Residual streams are pruned too, as the tool does; the classifier's outputs stay.
"""

from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.structure import Structure, unexpanded_graph

STEPS = 400
"""Steps from all channels to none, in each of which importances are measured anew."""


def prune_to(model: nn.Module, spec: ModelSpec, budget: Budget) -> Structure:
    """Remove channels of a trained network, in place.

    Args:
        model: the network, at its published widths, on the CPU.
        spec: what it was built from.
        budget: of MACs, relative to the published network.

    Returns:
        The structure that ``model`` has now.
    """
    graph = unexpanded_graph(spec)
    pruner = tp.pruner.GroupNormPruner(
        model.eval(),
        torch.zeros(1, *spec.input_shape),
        tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:],
    )
    limit = budget.limit(graph.cost().macs)
    for _ in range(STEPS):
        if graph.cost(widths_of(model, graph)).macs <= limit:
            break
        pruner.step()
    # A structure with a threshold is one that was cut from a network, whose weights a training may start from.
    chosen_by = {"method": "torch_pruning", "threshold": 0.0, "policy": "all", "version": tp.__version__}
    return Structure.from_widths(spec, graph, widths_of(model, graph), budget, chosen_by)


def widths_of(model: nn.Module, graph: ChannelGraph) -> dict[str, int]:
    """Return the width that every channel group of ``graph`` has in a network that lost channels."""
    widths = graph.widths()
    for group in graph.groups:
        writers = [module for module, role in graph.members(group.name) if role == "writes"]
        if group.resizable and writers:
            layer: Any = model.get_submodule(writers[0])
            widths[group.name] = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return widths
