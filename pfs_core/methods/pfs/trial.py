"""The gradients that a loss gives the gates of a network, tried before its search."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pfs_core.channels import ChannelGraph
from pfs_core.channels.export import in_a_line
from pfs_core.errors import UserError
from pfs_core.methods.pfs.gates import Gates, put_in
from pfs_core.runtime.device import autocast
from pfs_core.training.memory_layout import random_state_kept, two_images, with_layout


def gate_gradients(
    model: nn.Module, graph: ChannelGraph, layout: torch.memory_format, precision: str, closed: bool = False
) -> dict[str, Tensor]:
    """Return the gradients of the gates for the cross-entropy of two random images.

    Args:
        model: the network; neither it nor torch's random state is changed.
        graph: its channel graph.
        layout: the memory format of the network.
        precision: ``bf16`` or ``fp32``.
        closed: every other gate is 0 and not 1.

    Returns:
        ``{group: float32 [gates]}``.

    Raises:
        UserError: the network cannot be run backward.
    """
    tried = with_layout(copy.deepcopy(model), layout).train()
    gates = Gates(tried, graph)
    if closed:
        gates.values.data[::2] = 0.0
    images, scales = two_images(model, graph.input_shape, layout, precision), gates.scales()
    try:
        with random_state_kept(images.device):
            with autocast(images.device, precision):
                logits: Tensor = functional_call(tried, scales, (images,), tie_weights=False).float()
            labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
            with put_in(tried, scales):
                found = torch.autograd.grad(F.cross_entropy(logits, labels), gates.values, allow_unused=True)[0]
    except RuntimeError as e:
        raise UserError(f"the gradients of the gates cannot be computed: {in_a_line(e)}") from None
    gradients = torch.zeros_like(gates.values) if found is None else found
    return dict(zip(gates.groups, gradients.split(gates.sizes), strict=True))
