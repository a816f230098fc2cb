"""What operations that move dimensions do to channels: flatten, view, permute, indexing, means over space."""

import math
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor, Shape, Size
from pfs_core.channels.nodes import argument, first, shape_of
from pfs_core.channels.tracer import ChannelTracer


def flatten(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a flatten, such as [N, C, H, W] to [N, C*H*W]: each channel becomes H*W neighbouring features."""
    x, before = tracer.channels(first(node)), shape_of(first(node))
    if node.op == "call_module":
        start, end = tracer.module(node).start_dim, tracer.module(node).end_dim
    else:
        start, end = argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)
    if x is None:
        return NotImplemented
    start, end = start % len(before), end % len(before)
    if x.dim < start:
        return x
    if x.dim > end:
        return x.on_dim(x.dim - end + start)
    if math.prod(before[start : x.dim]) != 1:  # the features of a channel would not be side by side
        return NotImplemented
    return x.repeated(math.prod(before[x.dim + 1 : end + 1])).on_dim(start)


def view(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``view`` and ``reshape``, where channels stay a dimension or become the outermost of several merged ones.

    The new size of that dimension has to be -1 or follow from the tensor itself, as in ``x.view(x.size(0), -1)``. A
    number written out would be wrong after a resize, so it freezes the channels.
    """
    x, before, after = tracer.channels(first(node)), shape_of(first(node)), shape_of(node)
    if x is None or len(node.args) < 2:
        return NotImplemented
    sizes = tuple(node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:])
    if len(sizes) != len(after):
        return NotImplemented
    # The new dimension may merge the channels with none, one, ... or all of the dimensions behind them.
    merged = [math.prod(before[x.dim + 1 : end]) for end in range(x.dim + 1, len(before) + 1)]
    for dim, width in enumerate(after):
        times, rest = divmod(width, before[x.dim])
        # It starts where the channels start only if as many values are in front of it.
        aligned = math.prod(after[:dim]) == math.prod(before[: x.dim])
        if aligned and not rest and times in merged and _follows(tracer, node, x, sizes, dim):
            return x.repeated(times).on_dim(dim)
    return NotImplemented


def _follows(tracer: ChannelTracer, node: fx.Node, x: Channels, sizes: tuple[Any, ...], dim: int) -> bool:
    """Return whether the sizes are right at any width of ``x``.

    Only the size of ``dim`` may depend on the width: as -1, or as a width that is unified with that of ``x``.
    """
    values = {d: tracer.value(size) for d, size in enumerate(sizes)}
    given = {d: value for d, value in values.items() if isinstance(value, Size | Shape | FixedTensor)}
    if sizes[dim] == -1 and not given:
        return True
    size = given.get(dim)
    if len(given) != 1 or not isinstance(size, Size):
        return False
    return tracer.unify(size.channels.parts, x.parts, f"{node.name} gives it the width of other channels")


def permute(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``permute``: the dimensions in another order."""
    x, dims = tracer.channels(first(node)), argument(node, 1, "dims")
    if x is None or dims is None:
        return NotImplemented
    order: Any = dims if isinstance(dims, tuple | list) else node.args[1:]
    return x.on_dim([d % len(order) for d in order].index(x.dim))


def transpose(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``transpose``: two dimensions swapped."""
    x = tracer.channels(first(node))
    a, b = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    if x is None or not (isinstance(a, int) and isinstance(b, int)):
        return NotImplemented
    dims = len(shape_of(node))
    a, b = a % dims, b % dims
    return x.on_dim({a: b, b: a}.get(x.dim, x.dim))


def unsqueeze(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``unsqueeze``: a new dimension of size 1."""
    x, dim = tracer.channels(first(node)), argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    before_channels = dim % len(shape_of(node)) <= x.dim
    return x.on_dim(x.dim + 1 if before_channels else x.dim)


def squeeze(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``squeeze``: dimensions of size 1 removed. Without ``dim`` it would remove a single channel as well."""
    x, before = tracer.channels(first(node)), shape_of(first(node))
    dim = argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    if dim is None:
        return tracer.freeze_inputs(
            node, f"a squeeze without a dimension ({node.name}), which would drop a single channel"
        )
    dims = [d % len(before) for d in _listed(dim)]
    return NotImplemented if x.dim in dims else _without(x, [d for d in dims if before[d] == 1])


def reduce(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a mean, sum or maximum over dimensions other than that of the channels."""
    x, dims = tracer.channels(first(node)), argument(node, 1, "dim")
    if x is None or dims is None:
        return NotImplemented
    count = len(shape_of(first(node)))
    dims = [d % count for d in _listed(dims)]
    if x.dim in dims or len(shape_of(node)) not in (count, count - len(dims)):
        return NotImplemented
    return x if len(shape_of(node)) == count else _without(x, dims)


def _without(x: Channels, dims: list[int]) -> Channels:
    """Return the channels after the dimensions ``dims`` have been removed."""
    return x.on_dim(x.dim - sum(d < x.dim for d in dims))


def _listed(dims: Any) -> list[int]:
    return list(dims) if isinstance(dims, tuple | list) else [dims]


def index(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x[...]``: of a tensor, anywhere but along its images and channels; of a shape, one of its sizes."""
    indexed, keys = tracer.value(node.args[0]), node.args[1]
    if isinstance(indexed, Shape):
        return _size(indexed, keys)
    if not isinstance(indexed, Channels) or any(isinstance(tracer.value(n), Size) for n in node.all_input_nodes):
        return NotImplemented
    keys = keys if isinstance(keys, tuple) else (keys,)
    if not all(key is None or type(key) in (int, slice) for key in keys):
        return NotImplemented
    # One key per dimension of the tensor, in its order; None among them adds a dimension of size 1.
    given = sum(key is not None for key in keys)
    keys = (*keys, *[slice(None)] * (len(shape_of(node.args[0])) - given))
    key_of_dim = [position for position, key in enumerate(keys) if key is not None]
    if keys[key_of_dim[0]] != slice(None) or keys[key_of_dim[indexed.dim]] != slice(None):
        return NotImplemented
    # A number removes its dimension, so those before the channels move them forward.
    return indexed.on_dim(sum(not isinstance(key, int) for key in keys[: key_of_dim[indexed.dim]]))


def size(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x.size()`` and ``x.size(dim)``."""
    x, dim = tracer.channels(node.args[0]), argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    shape = Shape(x, len(shape_of(node.args[0])))
    return shape if dim is None else _size(shape, dim)


def attribute(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x.shape`` and other attributes of a tensor."""
    x = tracer.channels(node.args[0])
    if x is None or node.args[1] not in ("shape", "ndim", "dtype", "device"):
        return NotImplemented
    return Shape(x, len(shape_of(node.args[0]))) if node.args[1] == "shape" else None


def metadata(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a method whose result does not depend on a width, such as the number of dimensions."""
    return None


def _size(shape: Shape, key: Any) -> Any:
    """Return what is known of ``shape[key]``: a width, or None for sizes that no width decides."""
    if isinstance(key, slice) and all(i is None or isinstance(i, int) for i in (key.start, key.stop, key.step)):
        return NotImplemented if shape.channels.dim in range(shape.dims)[key] else None
    if not isinstance(key, int):
        return NotImplemented
    return Size(shape.channels) if key % shape.dims == shape.channels.dim else None
