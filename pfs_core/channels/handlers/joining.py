"""What operators that join tensors or take them apart do to channels: cat, stack, split, slices."""

from dataclasses import replace
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels
from pfs_core.channels.groups import zero_in_both
from pfs_core.channels.handlers.elementwise import along
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.nodes import argument, as_list, first, is_residual, joint, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def concatenate(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a concatenation.

    Along the channels it puts one group after the other; along another dimension it unifies the channels of all
    tensors.
    """
    tensors, dims = first(node), len(shape_of(node))
    known = [x for x in map(tracer.channels, tensors) if x is not None]
    if not known or any(x.outer is not None for x in known):
        return NotImplemented
    dim, channel_dim = argument(node, "dim") % dims, known[0].dim
    all_rows = [tracer.parts_of_dim(tensor, channel_dim) for tensor in tensors]
    if dim == channel_dim:
        all_rows = [
            tracer.constant_parts(tensor, dim) if row is None else row
            for tensor, row in zip(tensors, all_rows, strict=True)
        ]
    rows = [row for row in all_rows if row is not None]
    if len(rows) < len(all_rows):
        return NotImplemented
    if dim == channel_dim:
        return Channels(dim, tracer.joined(tuple(part for row in rows for part in row)))
    return _unified(tracer, node, [replace(known[0], parts=row) for row in rows], "")


def stack(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a stack: it unifies the channels of all tensors and puts a new dimension beside theirs."""
    values = [tracer.channels(tensor) for tensor in first(node)]
    known = [x for x in values if x is not None]
    if len(known) < len(values) or any((x.dim, x.outer) != (known[0].dim, None) for x in known):
        return NotImplemented
    stream = f"joined in {joint(node)}" if is_residual(node, first(node)) else ""
    out = _unified(tracer, node, known, stream)
    dim = argument(node, "dim") % len(shape_of(node))
    return out.on_dim(out.dim + (dim <= out.dim))


def _unified(tracer: ChannelTracer, node: fx.Node, tensors: list[Channels], stream: str) -> Channels:
    """Unify the channels of several tensors; the result is 0 where all of them are."""
    out = tensors[0]
    for other in tensors[1:]:
        if not tracer.unify(out.parts, other.parts, f"{joint(node)} joins channels with other borders", stream):
            break
        out = replace(out, parts=tuple(map(zero_in_both, *tracer.matched(out.parts, other.parts))))
    return out


def take(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a slice along one dimension; of the channels it takes whole blocks."""
    x, dim, shape = tracer.channels(first(node)), argument(node, "dim"), shape_of(first(node))
    if x is None:
        return NotImplemented
    dim %= len(shape)
    if operation(node) == "narrow":
        start, step = argument(node, "start"), 1
    else:
        start, step = argument(node, "start") or 0, argument(node, "step") or 1
    if dim not in (x.dim, x.outer) or shape_of(node) == shape:
        return x
    if dim == x.outer or x.outer is not None or step != 1:
        return NotImplemented
    start = start + shape[dim] if start < 0 else min(start, shape[dim])
    parts = tracer.block_of(x.parts, start, start + shape_of(node)[dim])
    if parts is None:
        return _not_blocks(tracer, node)
    if start == 0:
        tracer.note_sizes(node, [shape_of(node)[dim]], [parts])
    return Channels(dim, parts)


def split(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``chunk`` and ``split``: of the channels, every part must be a number of whole blocks."""
    x, shapes = tracer.channels(first(node)), [tuple(value.shape) for value in node.meta["val"]]
    if x is None:
        return NotImplemented
    dim = (argument(node, "dim") or 0) % len(shape_of(first(node)))
    if dim not in (x.dim, x.outer):
        return tuple(x for _ in shapes)
    if x.outer is not None:
        return NotImplemented
    out, at = [], 0
    for shape in shapes:
        parts = tracer.block_of(x.parts, at, at + shape[dim])
        if parts is None:
            return _not_blocks(tracer, node)
        out.append(Channels(dim, parts))
        at += shape[dim]
    given = argument(node, "split_size", "split_sizes")
    if given is not None:
        numbers = as_list(given)
        tracer.note_sizes(node, numbers, [part.parts for part in out[: len(numbers)]])
    return tuple(out)


def unbind(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``unbind`` and ``select``, which take a dimension away; along the outer one of two, a block each."""
    x, dim = tracer.channels(first(node)), argument(node, "dim") or 0
    shape = shape_of(first(node))
    dim %= len(shape)
    if x is None or dim == x.dim:
        return NotImplemented
    several = isinstance(node.meta["val"], tuple | list)
    if dim != x.outer:
        outer = None if x.outer is None else x.outer - (dim < x.outer)
        one = replace(x, dim=x.dim - (dim < x.dim), outer=outer)
        return tuple(one for _ in node.meta["val"]) if several else one
    size = shape[x.dim]
    wanted = range(shape[dim]) if several else [argument(node, "index") % shape[dim]]
    out = [tracer.block_of(x.parts, i * size, (i + 1) * size) for i in wanted]
    if any(parts is None for parts in out):
        return _not_blocks(tracer, node)
    blocks = tuple(Channels(x.dim - (dim < x.dim), parts) for parts in out if parts is not None)
    return blocks if several else blocks[0]


def repeat(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``repeat``: along the channels it is a concatenation of a tensor with itself."""
    x, times = tracer.channels(first(node)), argument(node, "repeats")
    if x is None or x.outer is not None:
        return NotImplemented
    out = x.shifted(len(times) - len(shape_of(first(node))))
    return _several_times(tracer, node, out, times[out.dim])


def _several_times(tracer: ChannelTracer, node: fx.Node, x: Channels, times: int) -> Channels:
    """Return channels ``times`` in a row; a single one, which may be meant for as many channels, stays single."""
    if tracer.features(x.parts) == 1 < times:
        tracer.freeze(x.parts, f"{joint(node)} spreads it over all channels")
    return replace(x, parts=x.parts * times)


def repeat_interleave(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``repeat_interleave`` by a number: along the channels, each of them several times side by side."""
    x, times, dim = tracer.channels(first(node)), argument(node, "repeats"), argument(node, "dim")
    if x is None or x.outer is not None or dim is None or not isinstance(times, int):
        return NotImplemented
    return x.repeated(times) if dim % len(shape_of(node)) == x.dim else x


def expand(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``expand``, which repeats values along dimensions of size 1, and puts new dimensions in front."""
    x, before, after = tracer.channels(first(node)), shape_of(first(node)), shape_of(node)
    if x is None:
        return _expanded_as(tracer, node)
    out = x.shifted(len(after) - len(before))
    if x.outer is None and before[x.dim] == 1:
        return _several_times(tracer, node, out, after[out.dim])
    if before[x.dim] != after[out.dim] or (x.outer is not None and before[x.outer] != after[out.outer or 0]):
        return NotImplemented
    return out


def _expanded_as(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Return another tensor, as wide as channels are: one value for all of them, or weights with one for each."""
    x = tracer.channels(argument(node, "other"))
    if x is None or not along(tracer, node, x, first(node)):
        return NotImplemented
    return x.without_gates(f"{operation(node)} ({place(node)})")


def glu(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``glu``, the first half of the channels times the sigmoid of the second: it is 0 where the first is."""
    x, shape = tracer.channels(first(node)), shape_of(first(node))
    if x is None or x.outer is not None:
        return NotImplemented
    if argument(node, "dim") % len(shape) != x.dim:
        return x
    half = shape[x.dim] // 2
    factor, gate = (tracer.block_of(x.parts, start, start + half) for start in (0, half))
    if factor is None or gate is None:
        return _not_blocks(tracer, node)
    tracer.unify(factor, gate, f"{joint(node)} multiplies channels with other borders")
    return Channels(x.dim, factor)


def index(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x[:, :, places]`` and ``index_select`` along space, and ``x[places]`` of images."""
    x, places = tracer.channels(first(node)), argument(node, "indices", "index")
    if x is None:
        return NotImplemented
    if operation(node) == "index_select":
        return x if argument(node, "dim") % len(shape_of(node)) not in (x.dim, x.outer) else NotImplemented
    given = [dim for dim, place in enumerate(places) if place is not None]
    apart = given != list(range(given[0], given[-1] + 1))  # the dimensions of the places then come first
    if apart or x.outer is not None or any(map(tracer.channels, places)):
        return NotImplemented
    before = given[-1] < x.dim and len(shape_of(node)) == len(shape_of(first(node)))
    return x if before or given[0] > x.dim else NotImplemented


def _not_blocks(tracer: ChannelTracer, node: fx.Node) -> Any:
    return tracer.freeze_inputs(
        node, f"{operation(node)} ({place(node)}), which does not take equal blocks of channels"
    )


JOINING: dict[str, Handler] = {
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    "stack": stack,
    **dict.fromkeys(("slice", "narrow"), take),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split", "tensor_split"), split),
    **dict.fromkeys(("unbind", "select"), unbind),
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("expand", "expand_as"), expand),
    "glu": glu,
    **dict.fromkeys(("index", "index_select"), index),
}
"""The handler of every operator that joins tensors or takes them apart."""
