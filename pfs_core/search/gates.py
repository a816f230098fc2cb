"""The gates of a network as one vector, acting through the scales of its BatchNorms."""

import torch
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph
from pfs_core.errors import UserError


class Gates:
    """One number in [0, 1] a prunable channel, all 1 at first.

    A gate multiplies the initial scale of the BatchNorms that gate its group; their shift is 0 and stays so, and so
    does every other parameter of the model, which :meth:`freeze` sees to. A gate of 0 therefore removes the channel.

    Attributes:
        values: float32 [channels], the only leaf that requires a gradient.
        groups: names of the prunable groups, in the order of ``values``.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        groups = graph.prunable()
        if not groups:
            reasons = "; ".join(f"{g.name}: {g.reason}" for g in graph.groups)
            raise UserError(f"no channel group of the network can be pruned ({reasons})")
        self.groups = [group.name for group in groups]
        self._sizes = [group.width for group in groups]
        self._norms = [(f"{norm}.weight", i) for i, group in enumerate(groups) for norm in group.gates]
        self._scales = {name: model.get_parameter(name).detach().clone() for name, _ in self._norms}
        device = next(iter(self._scales.values())).device
        self.values = torch.ones(sum(self._sizes), device=device, requires_grad=True)

    @staticmethod
    def freeze(model: nn.Module) -> None:
        """Stop gradients to every parameter of ``model`` and set the shift of its BatchNorms to 0."""
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def scales(self) -> dict[str, Tensor]:
        """The gated BatchNorm scales ``{parameter: [channels]}`` for ``torch.func.functional_call``."""
        parts = self.values.split(self._sizes)
        return {name: parts[i] * self._scales[name] for name, i in self._norms}

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put every gate back into [0, 1]."""
        self.values.clamp_(0.0, 1.0)

    def mean(self) -> Tensor:
        """Mean over all gates of |gate|, with its gradient."""
        return self.values.abs().mean()

    def nonzero(self) -> float:
        """Fraction of gates above 0."""
        return (self.values > 0).double().mean().item()

    def by_group(self) -> dict[str, Tensor]:
        """A copy of the gates on the CPU: ``{group: float32 [width]}``."""
        parts = self.values.detach().cpu().clone().split(self._sizes)
        return dict(zip(self.groups, (part.clone() for part in parts), strict=True))
