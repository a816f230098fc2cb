"""The network under search: its gates, and of its channels only those that can still matter."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pfs_core.channels import ChannelGraph, slice_weights
from pfs_core.methods.pfs.gates import Gates
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.frozen_conv import freeze_convolutions
from pfs_core.runtime.device import autocast, compiled

MULTIPLE = 2
"""Widths shrink in steps of so many gates: what bf16 kernels multiply at once."""

EVERY = 50
"""Steps between looks for channels that can leave."""


class GatedNetwork:
    """A frozen network, its gates and their optimiser.

    A gate of a rectified group that has reached 0 stays there. What it lets through is 0; the derivative of ReLU at 0
    is 0, and so is that of ``|gate|``: its gradient is 0 from then on. Adam's mean of gradients was positive when the
    gate fell to 0, and only decays. So the channel can leave the network, and :meth:`shrink` lets it: the search
    computes what it would have computed, on fewer and fewer channels (only what dropout draws is drawn otherwise).

    Attributes:
        module: the network with the channels that are left; the BatchNorms that no channel has left
            share their statistics with ``model``.
        gates: of the channels that are left.
        left: int64, the positions of ``gates.values`` among all gates.
        precision: ``bf16`` or ``fp32``.
        steps: steps done.

    Args:
        model: the network on its device; its parameters are frozen, in place.
        graph: its channel graph.
        precision: ``bf16`` or ``fp32``.
        lr: Adam's learning rate.
        compile: use torch.compile; a compiled network keeps all its channels, as every change would compile it again.

    Raises:
        UserError: the network has nothing to prune.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, precision: str, lr: float, compile: bool = False) -> None:
        self._model, self.graph, self.precision, self._lr = model, graph, precision, lr
        self._compiled = compile
        if precision == "bf16":
            _weights_to_bf16(model)
        self._prepare()
        self.sizes = self.gates.sizes
        self.steps = 0
        self.left = torch.arange(sum(self.sizes))

    def _prepare(self) -> None:
        model = self._model if self._compiled else freeze_convolutions(fold_norms(self._model))
        self.module = model.to(memory_format=torch.channels_last).train()
        self.gates = Gates(self.module, self.graph)
        self._forward = compiled(self._eager) if self._compiled else self._eager
        self._optimiser = torch.optim.Adam([self.gates.values], lr=self._lr)

    def __call__(self, images: Tensor) -> Tensor:
        """Float images [N, C, H, W] to float32 logits [N, classes]."""
        return self._forward(self.gates.scales(), images)

    def _eager(self, scales: dict[str, Tensor], images: Tensor) -> Tensor:
        with autocast(images.device, self.precision):
            return functional_call(self.module, scales, (images,), tie_weights=False).float()

    def mean(self) -> Tensor:
        """Mean over all gates of |gate|, with its gradient."""
        return self.gates.values.abs().sum() / sum(self.sizes)

    def nonzero(self) -> float:
        """Fraction of all gates above 0."""
        return int((self.gates.values > 0).sum()) / sum(self.sizes)

    def by_group(self) -> dict[str, Tensor]:
        """All gates on the CPU: ``{group: float32 [gates]}``."""
        every = torch.zeros(sum(self.sizes))
        every[self.left] = self.gates.values.detach().cpu()
        parts = zip(self.gates.groups, every.split(self.sizes), strict=True)
        return {group: part.clone() for group, part in parts}

    def step(self, loss: Tensor) -> None:
        """Backward, Adam, and the gates back into [0, 1]; now and then, channels leave."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self.gates.clamp_()
        self.steps += 1
        if self.steps % EVERY == 0 and not self._compiled:
            self.shrink()

    def shrink(self) -> None:
        """Remove channels whose gate is 0 for good; at least one a group stays."""
        values = self.gates.values.detach().cpu()
        rectified = {group.name for group in self.graph.groups if group.rectified}
        kept = {
            group: _kept(part) if group in rectified else torch.arange(len(part))
            for group, part in zip(self.gates.groups, values.split(self.gates.sizes), strict=True)
        }
        starts = torch.tensor([0, *self.gates.sizes]).cumsum(0)
        index = torch.cat([start + part for start, part in zip(starts[:-1], kept.values(), strict=True)])
        if len(index) < len(values):
            self._cut(kept, index)

    def _cut(self, kept: dict[str, Tensor], index: Tensor) -> None:
        """Leave only the kept gates of each group, at ``index`` among all that are left."""
        blocks = {group.name: group.blocks for group in self.graph.groups}
        widths = {name: len(part) * blocks[name] for name, part in kept.items()}
        self._model = slice_weights(self._model, self.graph, kept)
        self.graph = self.graph.with_widths(self.graph.widths() | widths)
        self.left = self.left[index]
        old, index = self.gates.values, index.to(self.gates.values.device)
        state = self._optimiser.state[old]
        self._prepare()
        self.gates.restore(old[index])
        if state:
            moments = {key: state[key][index] for key in ("exp_avg", "exp_avg_sq")}
            self._optimiser.state[self.gates.values] = {"step": state["step"], **moments}

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs, for a checkpoint."""
        return {
            "steps": self.steps,
            "left": self.left,
            "gates": self.gates.values.detach(),
            "optimiser": self._optimiser.state_dict(),
            "buffers": dict(self.module.named_buffers()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; to be called before any step."""
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))[state["left"]]
        starts = torch.tensor([0, *self.sizes]).cumsum(0)
        kept = {group: state["left"][owner == i] - starts[i] for i, group in enumerate(self.gates.groups)}
        self.steps = state["steps"]
        self._cut(kept, state["left"])
        self.gates.restore(state["gates"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.module.load_state_dict(state["buffers"], strict=False)


def _kept(gates: Tensor) -> Tensor:
    """Sorted positions of all gates above 0, and of as many others as make a multiple of ``MULTIPLE``."""
    alive = int((gates > 0).sum())
    count = MULTIPLE * max(1, -(-alive // MULTIPLE))
    return torch.argsort((gates == 0).int(), stable=True)[:count].sort().values


def _weights_to_bf16(model: nn.Module) -> None:
    """What autocast would do with the weights of convolutions and linear layers in every step."""
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)
