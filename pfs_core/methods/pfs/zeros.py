"""Layers that start at 0, behind which a frozen network learns nothing.

A residual branch that ends in a BatchNorm of scale 0 (Goyal et al. 2017, "Accurate, Large Minibatch SGD") or a
classifier of weight 0 is a good start for a training, which moves it from there. In a search on random weights it stays
at 0 for ever: the loss gives no gradient to the gates before it, so that the regulariser alone moves them, all alike.
"""

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pfs_core.channels import ChannelGraph
from pfs_core.methods.pfs.trial import gate_gradients

logger = logging.getLogger(__package__)

_SHOWN = 6
"""Number of groups that a message names."""


def redraw_zeros(model: nn.Module, graph: ChannelGraph, layout: torch.memory_format, precision: str) -> None:
    """Where gates get no gradient, give layers whose weight is 0 the weight that such a layer has by default.

    Says which gates still get none.

    Args:
        model: the network, changed in place.
        graph: its channel graph.
        layout: the memory format of the network.
        precision: ``bf16`` or ``fp32``.

    Raises:
        UserError: as :func:`gate_gradients`.
    """
    if not _silent(gate_gradients(model, graph, layout, precision)):
        return
    count = _redraw(model)
    silent = _silent(gate_gradients(model, graph, layout, precision))
    if count:
        logger.info(
            f"search: {count} layer(s) start at 0, which leaves gates without a gradient; they are drawn at random"
        )
    if silent:
        more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
        logger.warning(
            f"search: the loss does not depend on the gates of {', '.join(silent[:_SHOWN])}{more}, so that nothing is "
            "learned of these channels"
        )


def _silent(gradients: Mapping[str, Tensor]) -> list[str]:
    """Return the groups none of whose gates gets a gradient."""
    return [group for group, gradient in gradients.items() if not gradient.any()]


@torch.no_grad()
def _redraw(model: nn.Module) -> int:
    """Draw the weights that are 0 as PyTorch does, always the same; returns the number of their layers."""
    generator, count = torch.Generator().manual_seed(0), 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.any():
            continue
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm):
            weight.fill_(1.0)
            count += 1
        elif isinstance(module, _ConvNd | nn.Linear):
            drawn = torch.empty(weight.shape)
            weight.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator))
            count += 1
    return count
