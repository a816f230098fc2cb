"""Calibrating a network and masking its channels, for the tests of masked against pruned."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pfs_core.channels import slice_weights
from pfs_core.methods.pfs.gates import Gates

NORMS = nn.modules.batchnorm._NormBase
EXACT = 1e-9
CHANGED = 1e-6


def calibrated(model, input_shape, batch=8):
    """``model`` in float64 and evaluation mode, with random affines, and running statistics that fit its inputs.

    What would hide a mask is made visible: layers that start at zero or almost (a classifier, ConvNeXt's layer_scale)
    get random values; what is random in training is switched off.
    """
    model = model.double().train()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, 0.0, 0.1)
        elif name.endswith("layer_scale"):
            nn.init.ones_(parameter)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        elif isinstance(module, NORMS) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
        if isinstance(module, NORMS) and module.track_running_stats:
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(torch.randn(batch, *input_shape, dtype=torch.float64))
    return model.eval()


def masked(model, graph, kept):
    """A copy of ``model`` that sets the channels of dropped gates to 0 where the graph says that gates act."""
    out = copy.deepcopy(model)
    for axis in graph.axes:
        if axis.role not in ("writes", "norm"):
            continue
        factors = []
        for name, repeat in axis.segments:
            group = graph.group(name)
            gate = torch.ones(group.gate_count, dtype=torch.float64)
            if name in kept and axis.module in group.gates:
                gate = torch.zeros_like(gate)
                gate[kept[name]] = 1
            factors.append(gate.repeat(group.blocks).repeat_interleave(repeat))
        factor = torch.cat(factors)
        if not factor.all():
            out.get_submodule(axis.module).register_forward_hook(_multiplied(factor))
    return out


def _multiplied(factor):
    def hook(module, inputs, output):
        return output * factor.view(-1, *[1] * (0 if isinstance(module, nn.Linear) else output.ndim - 2))

    return hook


def random_kept(graph, seed=0, share=0.5):
    """A random share of the gates of every prunable group, at least one, sorted: ``{group: indices}``."""
    random = torch.Generator().manual_seed(seed)
    kept = {}
    for group in graph.prunable():
        order = torch.randperm(group.gate_count, generator=random)
        kept[group.name] = order[: max(1, round(group.gate_count * share))].sort().values
    return kept


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


def both_ways(model, graph, kept, input_shape, batch=4):
    """Calibrate ``model``, and compare by masks and by gates; the kept channels' parameters are those of the cost."""
    model = calibrated(model, input_shape, batch)
    images = torch.randn(batch, *input_shape, dtype=torch.float64)
    widths = graph.widths() | {name: len(index) * graph.group(name).blocks for name, index in kept.items()}
    pruned = slice_weights(model, graph, kept)
    assert sum(p.numel() for p in pruned.parameters()) == graph.cost(widths).params
    return by_mask(model, graph, kept, images), by_gates(model, graph, kept, images)


def difference(a, b):
    """Largest difference of two outputs, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()
