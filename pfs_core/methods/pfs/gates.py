"""The gates of a network as one vector, acting where a masked channel is an absent one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph
from pfs_core.errors import UserError


class _Piece(NamedTuple):
    """A stretch of a gated layer's features: the gates at ``position`` act on it, or none do."""

    position: int | None
    width: int
    blocks: int
    repeat: int


class Gates:
    """One number in [0, 1] a prunable channel (or a set of channels that come and go together), all 1 at first.

    A gate multiplies the initial scale of the BatchNorms that gate its group, and their shift where it is not 0. Where
    another layer gates the group, its output is multiplied. Every parameter of the model is frozen. A gate of 0
    therefore removes the channel.

    Attributes:
        values: float32 [gates], the only leaf that requires a gradient.
        groups: names of the prunable groups, in the order of ``values``.
        sizes: gates a group.

    Args:
        model: the network; its parameters are frozen, in place.
        graph: its channel graph.

    Raises:
        UserError: the network has nothing to prune.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        groups = graph.prunable()
        if not groups:
            reasons = "; ".join(f"{g.name}: {g.reason}" for g in graph.groups)
            raise UserError(f"no channel group of the network can be pruned ({reasons})")
        self.groups = [group.name for group in groups]
        self.sizes = [group.gate_count for group in groups]
        self._scales: dict[str, tuple[Tensor, list[_Piece]]] = {}
        self._outputs: dict[str, list[_Piece]] = {}
        self._factors: dict[str, Tensor] = {}
        model.requires_grad_(False)
        device = next(model.parameters()).device
        self.values = torch.ones(sum(self.sizes), device=device, requires_grad=True)
        of = {group.name: group for group in graph.groups}
        gated = {name for group in groups for name in group.gates}
        for axis in graph.axes:
            if axis.module not in gated or axis.role not in ("writes", "norm"):
                continue
            module: Any = model.get_submodule(axis.module)
            pieces = [
                _Piece(
                    self.groups.index(name) if axis.module in of[name].gates else None,
                    of[name].width,
                    of[name].blocks,
                    repeat,
                )
                for name, repeat in axis.segments
            ]
            if axis.role == "norm" and module.weight is not None:
                self._scales[f"{axis.module}.weight"] = (module.weight.detach().clone(), pieces)
                if module.bias is not None and module.bias.any():
                    self._scales[f"{axis.module}.bias"] = (module.bias.detach().clone(), pieces)
            else:
                self._outputs[axis.module] = pieces
                module.register_forward_hook(self._multiply(axis.module))

    def scales(self) -> dict[str, Tensor]:
        """The gated BatchNorm scales, and shifts, ``{parameter: [channels]}`` for ``torch.func.functional_call``.

        The factors of the outputs that are gated are renewed at the same time.
        """
        parts = self.values.split(self.sizes)
        self._factors = {name: _factor(pieces, parts) for name, pieces in self._outputs.items()}
        return {name: _factor(pieces, parts) * initial for name, (initial, pieces) in self._scales.items()}

    def _multiply(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            factor = self._factors[name].to(output.dtype)
            trailing = 0 if isinstance(module, nn.Linear) else output.ndim - 2
            return output * factor.view(-1, *[1] * trailing)

        return hook

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put every gate back into [0, 1]."""
        self.values.clamp_(0.0, 1.0)

    @torch.no_grad()
    def restore(self, values: Tensor) -> None:
        """Take the values of an earlier search."""
        self.values.copy_(values)

    def by_group(self) -> dict[str, Tensor]:
        """A copy of the gates on the CPU: ``{group: float32 [gates]}``."""
        parts = self.values.detach().cpu().split(self.sizes)
        return {group: part.clone() for group, part in zip(self.groups, parts, strict=True)}


def _factor(pieces: list[_Piece], parts: tuple[Tensor, ...]) -> Tensor:
    """One factor a feature of a layer: the gates of the groups that it gates, 1 for the channels of others."""
    factors = []
    for position, width, blocks, repeat in pieces:
        factor = parts[0].new_ones(width) if position is None else parts[position]
        if position is not None and blocks > 1:
            factor = factor.repeat(blocks)
        factors.append(factor if repeat == 1 else factor.repeat_interleave(repeat))
    return factors[0] if len(factors) == 1 else torch.cat(factors)
