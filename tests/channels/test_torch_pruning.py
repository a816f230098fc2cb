"""The groups are those of torch-pruning's dependency graph, on every network where that can be built."""

import pytest
import torch
import torch_pruning as tp
from torch import nn

from tests.channels.torchvision_models import PLAIN, TRANSFORMERS, build, small, traced_for_search

QUICK = ("alexnet", "resnet18", "densenet121", "squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf")
NOT_BUILT = {
    "shufflenet_v2_x0_5": "its graph of a channel shuffle divides by zero",
    "shufflenet_v2_x1_0": "its graph of a channel shuffle divides by zero",
}
NAMES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in (*PLAIN, *TRANSFORMERS)
    if name not in NOT_BUILT
]
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def theirs(model, graph, layer):
    """``{(layer, side)}`` that torch-pruning prunes with the output channels of ``layer``."""
    names = {module: name for name, module in [*model.named_modules(), *model.named_parameters()]}
    prune = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
    found = set()
    for dependency, _ in graph.get_pruning_group(layer, prune, idxs=[0]):
        module = dependency.target.module
        if module not in names or (isinstance(module, nn.Module) and not list(module.parameters(recurse=False))):
            continue
        side = "writes" if graph.is_out_channel_pruning_fn(dependency.handler) else "reads"
        found.add((names[module], side if isinstance(module, LAYERS) else "norm"))
    return found


def ours(graph, group):
    """The same of a channel group."""
    sides = {"depthwise": "writes", "scale": "norm"}
    return {(module, sides.get(role, role)) for module, role in graph.members(group) if role != "gate"}


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_torch_prunings(name):
    model = build(name).eval()
    graph = traced_for_search(name, model, "all")
    dependencies = tp.DependencyGraph().build_dependency(model, torch.randn(1, *small(name)))
    compared = 0
    for group in graph.groups:
        members = graph.members(group.name)
        for module, role in members if group.resizable else []:
            if role == "writes" and (module, "depthwise") not in members:
                assert theirs(model, dependencies, model.get_submodule(module)) == ours(graph, group.name), module
                compared += 1
    assert compared >= len(graph.prunable())


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_BUILT)
def test_torch_pruning_still_fails_where_it_is_not_compared(name):
    with pytest.raises(ZeroDivisionError):
        tp.DependencyGraph().build_dependency(build(name).eval(), torch.randn(1, *small(name)))
