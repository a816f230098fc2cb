"""What operators on space do to channels: pooling, resizing, padding, shuffling pixels."""

import math
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels
from pfs_core.channels.handlers.elementwise import breaks_zero
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.nodes import argument, as_list, first, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def pool(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operator on each channel alone that keeps zeros, such as pooling or interpolation.

    It works on as many of the last dimensions as its name says; the channels must not be one of them.
    """
    x = tracer.channels(first(node))
    spatial = next((int(digit) for digit in operation(node) if digit.isdigit()), 2)
    if x is None or x.dim >= len(shape_of(first(node))) - spatial:
        return NotImplemented
    values = node.meta.get("val")
    return tuple(x for _ in values) if isinstance(values, tuple | list) else x  # the maximum's places have them as well


def pad(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a padding of space; channels that are padded themselves are frozen (a ResNet's shortcut of option A)."""
    x, shape = tracer.channels(first(node)), shape_of(first(node))
    sizes, mode, value = argument(node, "pad", "padding"), argument(node, "mode"), argument(node, "value")
    if x is None:
        return NotImplemented
    before_last = len(shape) - 1 - x.dim  # sizes are given in pairs, for the last dimension first
    if any(sizes[2 * before_last : 2 * before_last + 2]):
        return tracer.freeze_inputs(node, f"a padding of the channels ({place(node)})")
    return breaks_zero(tracer, node) if value and mode in (None, "constant") else x


def move_pixels(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operator that moves values along the dimensions that it is given, which must not be the channels'."""
    x, dims = tracer.channels(first(node)), argument(node, "dims", "dim")
    count = len(shape_of(first(node)))
    if x is None or dims in (None, []) or {x.dim, x.outer} & {dim % count for dim in as_list(dims)}:
        return NotImplemented
    if isinstance(node.meta["val"], tuple | list):  # with their places
        return x, x.without_gates(f"the places of {operation(node)} ({place(node)})")
    return x


def patches(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``unfold`` of images: each channel becomes as many neighbouring ones as a patch has pixels."""
    x = tracer.channels(first(node))
    if x is None or x.dim != len(shape_of(first(node))) - 3 or x.outer is not None:
        return NotImplemented
    return x.repeated(math.prod(argument(node, "kernel_size")))


def from_patches(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``fold``, the sum of such patches."""
    x, times = tracer.channels(first(node)), math.prod(argument(node, "kernel_size"))
    return NotImplemented if x is None or x.dim != len(shape_of(first(node))) - 2 else _one_of(tracer, x, times)


def windows(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``Tensor.unfold``: windows along a dimension of space become a last dimension."""
    x = tracer.channels(first(node))
    if x is None or argument(node, "dimension") % len(shape_of(first(node))) in (x.dim, x.outer):
        return NotImplemented
    return x


def pixel_unshuffle(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``pixel_unshuffle``: each channel becomes several neighbouring ones, of every so manyth pixel."""
    x = tracer.channels(first(node))
    if x is None or x.dim != len(shape_of(node)) - 3:
        return NotImplemented
    return x.repeated(argument(node, "downscale_factor") ** 2)


def pixel_shuffle(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``pixel_shuffle``: several neighbouring channels become one."""
    x, times = tracer.channels(first(node)), argument(node, "upscale_factor") ** 2
    return NotImplemented if x is None or x.dim != len(shape_of(node)) - 3 else _one_of(tracer, x, times)


def _one_of(tracer: ChannelTracer, x: Channels, times: int) -> Any:
    """Return channels of which every ``times`` neighbouring features become one, and so come and go together."""
    if (parts := tracer.gathered(x.parts, times)) is None:
        return NotImplemented
    return Channels(x.dim, tuple(part._replace(repeat=part.repeat // times) for part in parts))


SPATIAL: dict[str, Handler] = {
    **dict.fromkeys([f"{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg")], pool),
    **dict.fromkeys([f"adaptive_max_pool{n}d" for n in (1, 2, 3)], pool),
    **dict.fromkeys([f"max_pool{n}d_with_indices" for n in (1, 2, 3)], pool),
    **dict.fromkeys([f"{kind}_pad{n}d" for n in (1, 2, 3) for kind in ("reflection", "replication")], pool),
    **dict.fromkeys(("upsample_linear1d", "upsample_trilinear3d"), pool),
    **dict.fromkeys([f"upsample_bi{kind}2d" for kind in ("linear", "cubic")], pool),
    **dict.fromkeys([f"_upsample_bi{kind}2d_aa" for kind in ("linear", "cubic")], pool),
    **dict.fromkeys([f"upsample_nearest{n}d" for n in (1, 2, 3)], pool),
    **dict.fromkeys([f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)], pool),
    "grid_sampler": pool,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("roll", "flip", "cumsum", "sort", "topk"), move_pixels),
    "im2col": patches,
    "col2im": from_patches,
    "unfold": windows,
    "pixel_unshuffle": pixel_unshuffle,
    "pixel_shuffle": pixel_shuffle,
}
"""The handler of every operator on space."""
