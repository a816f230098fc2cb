"""The network under search: its gates, and only those of its channels that can still matter."""

import contextlib
import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.methods.pfs.gates import Gates, put_in
from pfs_core.methods.pfs.roots import RootsFlatAtZero, spoilt_at_zero
from pfs_core.methods.pfs.zeros import redraw_zeros
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.frozen_conv import freeze_convolutions
from pfs_core.runtime.device import autocast, compiled
from pfs_core.training.memory_layout import layout_for, with_layout, wrong_in_a_step

MULTIPLE = 2
"""Groups shrink to multiples of this many gates: CPU kernels for bf16 multiply two input channels at once, so a channel
that leaves alone saves no time."""

SHRINK_EVERY = 50
"""Steps between two removals of channels. Each rebuilds the network; at this rate they take about 1% of the search."""


class GatedNetwork:
    """A frozen network with gates, and the optimiser of the gates.

    A gate of a rectified group that has reached 0 stays at 0. It lets 0 through, where the derivative of ReLU is 0, and
    so is that of the regulariser's ``|gate|``: the gradient of the gate is 0 from then on. Adam's running mean of the
    gradients was positive when the gate fell to 0 and only decays, so it cannot lift the gate either. The channel can
    therefore leave the network: :meth:`shrink` removes it, and the search computes what it would have computed, on
    fewer and fewer channels (except that dropout draws other random numbers).

    Attributes:
        module: the network with its remaining channels. BatchNorms that have lost no channel share their statistics
            with the model that was passed in.
        graph: the channel graph of ``module``.
        gates: the gates of the remaining channels.
        remaining: int64 [remaining gates], the positions of ``gates.values`` among the gates of the whole network.
        sizes: number of gates of each group in the whole network.
        precision: ``bf16`` or ``fp32``.
        layout: the memory format of the network; its images should be in it.
        steps: optimiser steps done.

    Args:
        model: the network on its device. Its parameters are frozen, in place, and drawn anew where they start at 0 and
            let no gradient through (:func:`redraw_zeros`).
        graph: the channel graph of the network.
        precision: ``bf16`` or ``fp32``.
        lr: Adam's learning rate.
        compile: use torch.compile. A compiled network keeps all its channels, since it would have to be compiled again
            whenever some leave.

    Raises:
        UserError: the network has nothing to prune, or cannot be trained.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, precision: str, lr: float, compile: bool = False) -> None:
        self._model, self.graph, self.precision, self._lr = model, graph, precision, lr
        self._compiled = compile
        self.layout = layout_for(model, graph.input_shape, precision)
        redraw_zeros(model, graph, self.layout, precision)
        if precision == "bf16":
            tried = _with_weights_in_bf16(copy.deepcopy(model))
            # A part of the network that turns autocast off needs its weights in float32.
            if not wrong_in_a_step(tried, graph.input_shape, self.layout, precision):
                _with_weights_in_bf16(model)
        spoilt = spoilt_at_zero(model, graph, self.layout, precision)
        self._roots: AbstractContextManager[Any] = RootsFlatAtZero() if spoilt else contextlib.nullcontext()
        self._prepare()
        self.sizes = self.gates.sizes
        self.steps = 0
        self.remaining = torch.arange(sum(self.sizes))

    def _prepare(self) -> None:
        """Rebuild everything that depends on the widths of the model."""
        self.module = with_layout(self._quick(), self.layout).train()
        self.gates = Gates(self.module, self.graph)
        self._forward = compiled(self._eager) if self._compiled else self._eager
        self._optimiser = torch.optim.Adam([self.gates.values], lr=self._lr)

    def _quick(self) -> nn.Module:
        """Return the model with layers that compute the same more quickly, some of them in channels_last only."""
        if self._compiled:
            return self._model
        folded = fold_norms(self._model)
        return freeze_convolutions(folded) if self.layout == torch.channels_last else folded

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the logits, float32 [N, classes], of float images [N, C, H, W]."""
        self._scales = self.gates.scales()
        return self._forward(self._scales, images)

    def _eager(self, scales: dict[str, Tensor], images: Tensor) -> Tensor:
        with autocast(images.device, self.precision), self._roots:
            out: Tensor = functional_call(self.module, scales, (images,), tie_weights=False).float()
            return out

    def mean(self) -> Tensor:
        """Return the mean of |gate| over all gates of the whole network, with its gradient."""
        return self.gates.values.abs().sum() / sum(self.sizes)

    def nonzero(self) -> float:
        """Return the fraction of all gates of the whole network that are above 0."""
        return int((self.gates.values > 0).sum()) / sum(self.sizes)

    def by_group(self) -> dict[str, Tensor]:
        """Return all gates on the CPU, ``{group: float32 [gates]}``; those of removed channels are 0."""
        values = torch.zeros(sum(self.sizes))
        values[self.remaining] = self.gates.values.detach().cpu()
        parts = zip(self.gates.groups, values.split(self.sizes), strict=True)
        return {group: part.clone() for group, part in parts}

    def step(self, loss: Tensor) -> None:
        """Take one optimiser step and clamp the gates to [0, 1]; now and then, remove channels."""
        self._optimiser.zero_grad(set_to_none=True)
        with put_in(self.module, self._scales):
            loss.backward()
        self._optimiser.step()
        self.gates.clamp_()
        self.steps += 1
        if self.steps % SHRINK_EVERY == 0 and not self._compiled:
            self.shrink()

    def shrink(self) -> None:
        """Remove channels whose gate will stay 0; every group keeps some."""
        values = self.gates.values.detach().cpu()
        rectified = {group.name for group in self.graph.groups if group.rectified}
        selected = {}
        for group, part in zip(self.gates.groups, values.split(self.gates.sizes), strict=True):
            # A gate of 0 that something other than a rectifier reads has a gradient and may grow again.
            selected[group] = _alive(part) if group in rectified else torch.arange(len(part))
        starts = torch.tensor([0, *self.gates.sizes]).cumsum(0)
        index = torch.cat([start + part for start, part in zip(starts[:-1], selected.values(), strict=True)])
        if len(index) < len(values):
            self._select(selected, index)

    def _select(self, selected: dict[str, Tensor], index: Tensor) -> None:
        """Keep only some of the remaining channels, with their gates and Adam's moments.

        Args:
            selected: ``{group: int64}``, sorted positions of the gates to keep among the remaining ones of the group.
            index: int64, the same positions among the remaining gates of all groups.
        """
        widths = {name: len(part) * self.graph.group(name).per_gate for name, part in selected.items()}
        self._model = slice_weights(self._model, self.graph, selected)
        self.graph = self.graph.with_widths(self.graph.widths() | widths)
        self.remaining = self.remaining[index]
        old, index = self.gates.values, index.to(self.gates.values.device)
        state = self._optimiser.state[old]
        self._prepare()
        self.gates.copy_(old[index])
        if state:
            moments = {key: state[key][index] for key in ("exp_avg", "exp_avg_sq")}
            self._optimiser.state[self.gates.values] = {"step": state["step"], **moments}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint. It has no weights: they are frozen, so a new object is given the same."""
        return {
            "steps": self.steps,
            "left": self.remaining,
            "gates": self.gates.values.detach(),
            "optimiser": self._optimiser.state_dict(),
            "buffers": dict(self.module.named_buffers()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`; call it before the first step."""
        remaining = state["left"]
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))[remaining]
        starts = torch.tensor([0, *self.sizes]).cumsum(0)
        selected = {group: remaining[owner == i] - starts[i] for i, group in enumerate(self.gates.groups)}
        self.steps = state["steps"]
        self._select(selected, remaining)
        self.gates.copy_(state["gates"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.module.load_state_dict(state["buffers"], strict=False)


def _alive(gates: Tensor) -> Tensor:
    """Return the sorted positions of all gates above 0, padded with others to a positive multiple of ``MULTIPLE``.

    >>> _alive(torch.tensor([0.0, 0.3, 0.0, 0.7, 0.2])).tolist()
    [0, 1, 3, 4]
    """
    alive = int((gates > 0).sum())
    count = MULTIPLE * max(1, -(-alive // MULTIPLE))
    return torch.argsort((gates == 0).int(), stable=True)[:count].sort().values


def _with_weights_in_bf16(model: nn.Module) -> nn.Module:
    """Return ``model``, changed: the weights of its convolutions and linear layers are in bf16.

    Autocast would convert them in every step, which is a waste where they never change.
    """
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)
    return model
