"""The gates of a network as one vector, applied where a channel that is multiplied by 0 acts like a removed one."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph, ChannelGroup, ChannelSlice


class _Stretch(NamedTuple):
    """Consecutive features of a gated layer that belong to one channel group.

    Attributes:
        position: the position of the group among the gated ones; None if this layer does not gate the group.
        group: the channel group.
        part: which of its channels they are, and how often.
    """

    position: int | None
    group: ChannelGroup
    part: ChannelSlice


class Gates:
    """One gate in [0, 1] per prunable channel, or per set of channels that come and go together; initially 1.

    Where BatchNorms or GroupNorms gate a group, a gate multiplies their initial scale, and their initial shift where
    that is not 0. Where another layer gates the group, or a norm of one's own that computes with something else than
    its scale and shift (the graph then has an axis ``gate`` of it), a forward hook multiplies its output. A channel
    whose gate is 0 therefore contributes nothing to the layers behind it, exactly as if it had been removed.

    Attributes:
        values: float32 [gates], the only tensor that requires a gradient.
        groups: names of the prunable groups, in the order of ``values``.
        sizes: number of gates of each group.

    Args:
        model: the network; all its parameters are frozen, in place.
        graph: the channel graph of the network.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        groups = graph.prunable()
        self.groups = [group.name for group in groups]
        self.sizes = [group.gate_count for group in groups]
        self._scales: dict[str, tuple[Tensor, list[_Stretch]]] = {}
        self._outputs: dict[str, list[_Stretch]] = {}
        self._factors: dict[str, Tensor] = {}
        model.requires_grad_(False)
        device = next(model.parameters()).device
        self.values = torch.ones(sum(self.sizes), device=device, requires_grad=True)
        group_named = {group.name: group for group in graph.groups}
        gating_layers = {name for group in groups for name in group.gates}
        by_output = graph.gated_by_output()
        for axis in graph.axes:
            if axis.module not in gating_layers or axis.role not in ("writes", "norm", "gate"):
                continue
            if axis.role == "norm" and axis.module in by_output:
                continue
            module: Any = model.get_submodule(axis.module)
            stretches = []
            for part in axis.segments:
                group = group_named[part.group]
                position = self.groups.index(group.name) if axis.module in group.gates else None
                stretches.append(_Stretch(position, group, part))
            if axis.role == "norm" and module.weight is not None:
                self._scales[f"{axis.module}.weight"] = (module.weight.detach().clone(), stretches)
                # The shift must follow the gate: a channel with scale 0 and a shift would still be a constant, not
                # absent. A fresh network has shifts of 0, which need no multiplication.
                if module.bias is not None and module.bias.any():
                    self._scales[f"{axis.module}.bias"] = (module.bias.detach().clone(), stretches)
            else:
                self._outputs[axis.module] = stretches
                module.register_forward_hook(self._multiply(axis.module, axis.trailing))

    def scales(self) -> dict[str, Tensor]:
        """Return the gated scales and shifts of norms, ``{parameter: [channels]}``.

        They replace the parameters in one call of ``torch.func.functional_call``; call this before every forward pass.
        It also prepares the factors with which the hooks multiply the outputs of other gating layers.
        """
        parts = self.values.split(self.sizes)
        self._factors = {name: _factor(stretches, parts) for name, stretches in self._outputs.items()}
        return {name: _factor(stretches, parts) * initial for name, (initial, stretches) in self._scales.items()}

    def _multiply(self, name: str, trailing: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output * self._factors[name].to(output.dtype).view(-1, *[1] * trailing)

        return hook

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp every gate to [0, 1], in place."""
        self.values.clamp_(0.0, 1.0)

    @torch.no_grad()
    def copy_(self, values: Tensor) -> None:
        """Overwrite the gates with ``values``, float32 [gates], in place."""
        self.values.copy_(values)

    def by_group(self) -> dict[str, Tensor]:
        """Return a copy of the gates on the CPU, ``{group: float32 [gates]}``."""
        parts = self.values.detach().cpu().split(self.sizes)
        return {group: part.clone() for group, part in zip(self.groups, parts, strict=True)}


@contextlib.contextmanager
def put_in(model: nn.Module, scales: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, ``model`` has the ``scales`` in place of its parameters, as in its forward pass.

    A network that checkpoints its activations (``torch.utils.checkpoint``) runs parts of that pass again in the
    backward pass, which has to be in this context.
    """
    places = [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in scales]
    own = [module._parameters[name] for module, name in places]
    for (module, name), scale in zip(places, scales.values(), strict=True):
        module._parameters[name] = scale  # type: ignore[assignment]  # as torch.func.functional_call does
    try:
        yield
    finally:
        for (module, name), parameter in zip(places, own, strict=True):
            module._parameters[name] = parameter


def _factor(stretches: list[_Stretch], parts: tuple[Tensor, ...]) -> Tensor:
    """Return one factor per feature of a layer: the gates of the groups that it gates, 1 for all other channels.

    Args:
        stretches: the features of the layer.
        parts: the gates of each group.
    """
    factors = []
    for position, group, part in stretches:
        gates = parts[0].new_ones(group.gate_count) if position is None else parts[position]
        factor = group.by_channel(gates, part.blocks)
        factors.append(factor if part.repeat == 1 else factor.repeat_interleave(part.repeat))
    return factors[0] if len(factors) == 1 else torch.cat(factors)
