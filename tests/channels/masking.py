"""Calibrating a network and masking its channels, for the tests of masked against pruned."""

import copy

import torch
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def calibrated(model, input_shape, rounds=4, batch=8):
    """``model`` in float64 and evaluation mode, with random BN affines and running statistics that fit its inputs."""
    model = model.double().train()
    for norm in (m for m in model.modules() if isinstance(m, NORMS) and m.affine):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.momentum = 0.5
    with torch.no_grad():
        for _ in range(rounds):
            model(torch.randn(batch, *input_shape, dtype=torch.float64))
    return model.eval()


def masked(model, norms_of_group, kept):
    """A copy of ``model`` whose named BNs have scale and shift 0 on every channel that is not in ``kept``."""
    out = copy.deepcopy(model)
    for group, index in kept.items():
        for name in norms_of_group[group]:
            norm = out.get_submodule(name)
            dropped = torch.ones(norm.num_features, dtype=torch.bool)
            dropped[index] = False
            norm.weight.data[dropped] = 0
            norm.bias.data[dropped] = 0
    return out


def gates_of(graph):
    """``{group: BNs}`` of the prunable groups."""
    return {group.name: group.gates for group in graph.prunable()}


def random_half(graph, seed=0):
    """A random half of the channels of every prunable group, sorted: ``{group: indices}``."""
    random = torch.Generator().manual_seed(seed)
    kept = {}
    for group in graph.prunable():
        order = torch.randperm(group.width, generator=random)
        kept[group.name] = order[: max(1, group.width // 2)].sort().values
    return kept


def difference(a, b):
    """Largest difference of two outputs, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()
