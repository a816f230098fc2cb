"""What operators that move dimensions do to channels: flatten, view, permute."""

import math
from dataclasses import replace
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.nodes import argument, as_list, first, joint, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def view(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a view, such as a flatten, where channels stay whole.

    They stay a dimension, become one of several merged ones (with dimensions behind them each channel is then several
    neighbouring features, with dimensions in front of them all channels come again and again) or what they were before
    that, or are divided in two dimensions, of which the first counts equal blocks; such two can become one again.
    That the sizes follow from the width, and are not numbers that only fit this one, the graph cannot say
    (:mod:`pfs_core.channels.proof` finds it).
    """
    x, before, after = tracer.channels(first(node)), shape_of(first(node)), shape_of(node)
    if x is None:
        return NotImplemented
    start, size = x.dim, before[x.dim]
    if x.outer is not None and x.outer != x.dim - 1:
        merged = (*before[: x.dim], size * before[x.outer], *before[x.dim + 2 :])
        return (
            shuffled(tracer, node, x, before[x.outer]) if x.outer == x.dim + 1 and after == merged else NotImplemented
        )
    if x.outer is not None:
        start, size = x.outer, before[x.outer] * size
    behind = before[x.dim + 1 :]
    # The new dimension may merge the channels with none, one, ... or all of the dimensions in front of them, but for
    # that of the images, and with as many of those behind them. It starts where as many values are in front of it.
    copies_from = {math.prod(before[:k]): math.prod(before[k:start]) for k in range(min(start, 1), start + 1)}
    for dim, width in enumerate(after):
        copies = copies_from.get(math.prod(after[:dim]))
        if copies is None:
            continue
        times, rest = divmod(width, copies * size)
        if not rest and times in [math.prod(behind[:end]) for end in range(len(behind) + 1)]:
            return _noted(tracer, node, Channels(dim, x.parts * copies).repeated(times))
        if copies > 1:
            continue
        times, ends = size // width, range(dim + 2, len(after) + 1)
        if size in [math.prod(after[dim:end]) for end in ends] and _are_wide(x, times):
            return Channels(dim, tuple(part._replace(repeat=part.repeat // times) for part in x.parts))
        if 1 < width < size and dim + 1 < len(after) and width * after[dim + 1] == size:
            return _divided(tracer, node, x, dim, width)
    return NotImplemented


def view_as(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``view_as``: a view as wide as another tensor, whose channels it has to be on the same dimension as."""
    x, other = view(tracer, node), tracer.channels(argument(node, "other"))
    if x is NotImplemented or other is None or (x.dim, x.outer) != (other.dim, other.outer):
        return NotImplemented
    tracer.unify(x.parts, other.parts, f"{joint(node)} views channels as those with other borders")
    return x


def _are_wide(x: Channels, times: int) -> bool:
    """Return whether every ``times`` neighbouring features are of one channel."""
    return x.outer is None and not any(part.repeat % times for part in x.parts)


def shuffled(tracer: ChannelTracer, node: fx.Node, x: Channels, blocks: int) -> Any:
    """Return channels in blocks in the order of a shuffle: the first ones of all blocks, then the second ones, ..."""
    block = tracer.blocks_at_once(x.parts, blocks, joint(node))
    return NotImplemented if block is None else Channels(x.dim, block).repeated(blocks)


def channel_shuffle(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``channel_shuffle``."""
    x = tracer.channels(first(node))
    if x is None or x.dim != 1 or x.outer is not None:
        return NotImplemented
    return shuffled(tracer, node, x, argument(node, "groups"))


def _divided(tracer: ChannelTracer, node: fx.Node, x: Channels, dim: int, blocks: int) -> Any:
    """Return channels divided in two dimensions: the block, and the place in it."""
    if x.outer is not None and shape_of(first(node))[x.outer] == blocks:
        return replace(x, dim=dim + 1, outer=dim)
    size = tracer.features(x.parts) // blocks
    every = [tracer.block_of(x.parts, i * size, (i + 1) * size) for i in range(blocks)]
    if any(block is None for block in every):
        return tracer.freeze_inputs(
            node, f"{operation(node)} ({place(node)}), which does not divide it in equal blocks"
        )
    _noted(tracer, node, Channels(dim + 1, every[0] or ()))
    return Channels(dim + 1, x.parts, outer=dim)


def _noted(tracer: ChannelTracer, node: fx.Node, x: Channels) -> Channels:
    """Note the number of channels where a view is given it."""
    tracer.note_passed(node, shape_of(node)[x.dim], x.parts, x.dim)
    return x


def reorder(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``permute``, ``transpose``, ``mT``, ``movedim`` and the like: the dimensions in another order."""
    x = tracer.channels(first(node))
    if x is None:
        return NotImplemented
    order = new_order(node)
    return replace(x, dim=order.index(x.dim), outer=None if x.outer is None else order.index(x.outer))


def new_order(node: fx.Node) -> list[int]:
    """Return, for each dimension of a tensor in another order, which one it was before."""
    count, name = len(shape_of(node)), operation(node)
    order = list(range(count))
    if name == "permute":
        return [dim % count for dim in argument(node, "dims")]
    if name in ("movedim", "moveaxis"):
        source = [dim % count for dim in as_list(argument(node, "source"))]
        target = [dim % count for dim in as_list(argument(node, "destination"))]
        rest = iter([dim for dim in order if dim not in source])
        return [source[target.index(dim)] if dim in target else next(rest) for dim in order]
    if name in ("numpy_T", "T"):
        return order[::-1]
    last_two = name in ("t", "mT")
    a, b = (-2, -1) if last_two else (argument(node, "dim0", "axis0"), argument(node, "dim1", "axis1"))
    if count > 1:  # the transpose of a vector is itself
        order[a], order[b] = order[b], order[a]
    return order


def unsqueeze(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``unsqueeze``: a new dimension of size 1."""
    x = tracer.channels(first(node))
    if x is None:
        return NotImplemented
    new = argument(node, "dim") % len(shape_of(node))
    outer = None if x.outer is None else x.outer + (new <= x.outer)
    return replace(x, dim=x.dim + (new <= x.dim), outer=outer)


def squeeze(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``squeeze``: dimensions of size 1 removed. Without ``dim`` it would remove a single channel as well."""
    x, before, dims = tracer.channels(first(node)), shape_of(first(node)), argument(node, "dim")
    if x is None or x.outer is not None:
        return NotImplemented
    if dims is None:
        return tracer.freeze_inputs(
            node, f"a squeeze without a dimension ({place(node)}), which would drop a single channel"
        )
    removed = [d % len(before) for d in as_list(dims) if before[d] == 1]
    if x.dim in [d % len(before) for d in as_list(dims)]:
        return NotImplemented
    return x.on_dim(x.dim - sum(d < x.dim for d in removed))


REORDERINGS = ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "mT", "T", "numpy_T")
SHAPES: dict[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "_unsafe_view"), view),
    **dict.fromkeys(("view_as", "reshape_as"), view_as),
    **dict.fromkeys(REORDERINGS, reorder),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
}
"""The handler of every operator that moves dimensions."""
