"""Channels of a widened network that are copies of others are told apart.

A layer that draws its weights where it is made cannot draw them anew at another width. It starts with its old values,
as often as they are needed, in the rows of its outputs as in the columns of its inputs. Such twins compute the same and
get the same gradients, and so stay the same for ever.
"""

import zlib

import torch
from torch import Tensor, nn

from pfs_core.channels.elements import features
from pfs_core.channels.graph import ChannelGraph

_ROLES = ("writes", "reads", "depthwise")
"""The roles of weights. A scale or a table of positions has a value per channel, which need not differ: weights do."""


@torch.no_grad()
def part_twins(model: nn.Module, graph: ChannelGraph) -> None:
    """Shuffle the values within every row and column of weights that is still a copy, in place, always alike.

    Buffers, frozen parameters and weights that are the same for all channels, such as a blur, stay as they are.

    Args:
        model: the widened network, its weights drawn where a module does so.
        graph: the channel graph of the network that it was made from.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    before = graph.widths()
    copied: dict[tuple[str, int], int] = {}
    for axis in graph.axes:
        for on in axis.tensors if axis.role in _ROLES else ():
            parameter, old = parameters.get(on.name), features(axis.segments, before) // on.shares
            if parameter is not None and parameter.requires_grad and _has_copies(parameter, on.dim, old):
                copied[on.name, on.dim] = old
    # All copies are known before the first one changes: a row is one whatever becomes of its columns.
    for (name, dim), old in copied.items():
        _shuffle(parameters[name].movedim(dim, 0)[old:], torch.Generator().manual_seed(zlib.crc32(name.encode())))


def _has_copies(weight: Tensor, dim: int, old: int) -> bool:
    """Return whether all slices from ``old`` on are copies of those before, which are not all the same.

    On the meta device there are no values to compare.
    """
    size = weight.shape[dim]
    if size <= old or weight.is_meta:
        return False
    sources = weight.index_select(dim, torch.arange(old, size, device=weight.device) % old)
    return torch.equal(weight.narrow(dim, old, size - old), sources) and bool(
        (weight != weight.narrow(dim, 0, 1)).any()
    )


def _shuffle(slices: Tensor, random: torch.Generator) -> None:
    """Move every value of each slice to another place in it, in place."""
    values = slices.reshape(len(slices), -1)
    order = torch.rand(values.shape, generator=random).argsort(1).to(values.device)
    # Each value moves to the place that is next in a random order, so that none stays where it is.
    shuffled = torch.empty_like(values).scatter_(1, order, values.gather(1, order.roll(1, 1)))
    slices.copy_(shuffled.view_as(slices))
