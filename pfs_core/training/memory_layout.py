"""The memory format that a network is trained and searched in: channels_last, unless its code does not run in it.

Convolutions are quicker in channels_last. But code such as ``x.view(x.size(0), -1)`` only runs on maps that lie in
memory channel after channel, which no graph of operators says: so the network is tried on two images.
"""

import copy
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from pfs_core.channels.export import in_a_line
from pfs_core.errors import UserError
from pfs_core.runtime.device import autocast

_IMAGES = 2
"""A BatchNorm over a map of one pixel needs two in training."""


def layout_for(model: nn.Module, shape: tuple[int, int, int], precision: str) -> torch.memory_format:
    """Return channels_last if ``model`` can be trained in it, else the contiguous format.

    Args:
        model: the network; neither it nor torch's random state is changed.
        shape: channels, height and width of an image.
        precision: ``bf16`` or ``fp32``.

    Raises:
        UserError: it can be trained in neither.

    >>> class Flat(nn.Module):
    ...     def forward(self, x):
    ...         return x.view(len(x), -1)
    >>> layout_for(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (3, 8, 8), "fp32")
    torch.channels_last
    >>> layout_for(nn.Sequential(nn.Conv2d(3, 4, 3), Flat()), (3, 8, 8), "fp32")
    torch.contiguous_format
    """
    for layout in (torch.channels_last, torch.contiguous_format):
        if not (wrong := wrong_in_a_step(copy.deepcopy(model), shape, layout, precision)):
            return layout
    advice = "; try search.precision=fp32 and retrain.precision=fp32" if precision == "bf16" else ""
    raise UserError(f"{type(model).__name__} cannot be trained in {precision}: {wrong}{advice}")


def with_layout(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Return ``model``, changed: the weights of its convolutions lie in ``layout``, those of other layers as they did.

    The network's own code may rely on how other tensors of four dimensions lie.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 4:
                    parameter.data = parameter.data.to(memory_format=layout)
    return model


def wrong_in_a_step(model: nn.Module, shape: tuple[int, int, int], layout: torch.memory_format, precision: str) -> str:
    """Return what fails when ``model`` is run forward and backward in training mode; empty if nothing does.

    Args:
        model: a network to spend: it is changed. Torch's random state is not.
        shape: channels, height and width of an image.
        layout: the memory format of its convolutions and images.
        precision: ``bf16`` or ``fp32``.
    """
    images = two_images(model, shape, layout, precision)
    try:
        with random_state_kept(images.device):
            with autocast(images.device, precision):
                logits = with_layout(model, layout).train()(images).float()
            if logits.requires_grad:
                logits.sum().backward()
    except Exception as e:  # whatever a user's model raises
        return in_a_line(e)
    return ""


def two_images(model: nn.Module, shape: tuple[int, int, int], layout: torch.memory_format, precision: str) -> Tensor:
    """Return random images, [2, C, H, W], always the same, to try ``model`` on: on its device, in its own precision.

    Under autocast they are in float32, as those of the dataset are, whatever its weights are in.
    """
    device = next(model.parameters(), torch.zeros(())).device
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    images = torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device, torch.float32 if precision == "bf16" else own)
    return images.contiguous(memory_format=layout)


def random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's generators of the CPU and of ``device`` are as they were before."""
    context: AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return context
