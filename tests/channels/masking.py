"""Masked against pruned, by masks and by the search's own gates, for the tests."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pfs_core.channels import proof, refuted_groups, slice_weights
from pfs_core.channels.proof import mask as masked
from pfs_core.channels.proof import random_kept
from pfs_core.methods.pfs.gates import Gates

NORMS = nn.modules.batchnorm._NormBase
EXACT = 1e-9
CHANGED = 1e-6


__all__ = [
    "CHANGED",
    "EXACT",
    "both_ways",
    "by_gates",
    "by_mask",
    "calibrated",
    "difference",
    "masked",
    "proved",
    "random_kept",
]


def calibrated(model, input_shape, batch=8):
    """The model in float64 and evaluation mode, calibrated on noise such that masks on any of its channels show."""
    return proof.calibrated(model, noise(input_shape, batch))


class Outputs(NamedTuple):
    """Of one batch, by three networks."""

    masked: Tensor
    pruned: Tensor
    whole: Tensor

    def error(self):
        """How far the masked network is from the pruned one."""
        return difference(self.masked, self.pruned)

    def effect(self):
        """How far the masked network is from the whole one."""
        return difference(self.masked, self.whole)


@torch.no_grad()
def by_mask(model, graph, kept, images):
    """Outputs with masks behind the gated layers, whose shifts may be anything."""
    pruned = slice_weights(model, graph, kept)
    return Outputs(masked(model, graph, kept)(images), pruned(images), model(images))


@torch.no_grad()
def by_gates(model, graph, kept, images):
    """Outputs with the search's own gates at 0, which need shifts of 0."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, NORMS) and module.affine:
            nn.init.zeros_(module.bias)
    pruned, whole = slice_weights(model, graph, kept)(images), model(images)
    gates = Gates(model, graph)
    start = 0
    for group in graph.prunable():
        index = kept.get(group.name, torch.arange(group.gate_count))
        of_group = gates.values[start : start + group.gate_count]
        of_group.zero_().index_fill_(0, index, 1.0)
        start += group.gate_count
    return Outputs(functional_call(model, gates.scales(), (images,)), pruned, whole)


def proved(model, graph):
    """The graph as a search uses it: what does not hold for the model is frozen."""
    return refuted_groups(model, graph).corrected(graph)


def both_ways(model, graph, kept, input_shape, batch=4):
    """Calibrate ``model``, and compare by masks and by gates; the kept channels' parameters are those of the cost."""
    model, images = calibrated(model, input_shape, batch), noise(input_shape, batch)
    widths = graph.widths() | {name: len(index) * graph.group(name).per_gate for name, index in kept.items()}
    pruned = slice_weights(model, graph, kept)
    assert sum(p.numel() for p in pruned.parameters()) == graph.cost(widths).params
    return by_mask(model, graph, kept, images), by_gates(model, graph, kept, images)


def noise(input_shape, batch=8):
    """Random images in float64, [N, C, H, W]."""
    return torch.randn(batch, *input_shape, dtype=torch.float64)


def difference(a, b):
    """Largest difference of two outputs, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()
