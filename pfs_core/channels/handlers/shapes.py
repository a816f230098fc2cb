"""What operations that move dimensions do to channels: flatten, view, permute, indexing, means over space."""

import math
from typing import TYPE_CHECKING, Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, Fixed, Shape, Size
from pfs_core.channels.slices import argument, first, shape_of

if TYPE_CHECKING:
    from pfs_core.channels.tracer import ChannelTracer


def flatten(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """[N, C, H, W] to [N, C*H*W]: each channel becomes H*W neighbouring features."""
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
        return x.at(x.dim - end + start)
    if math.prod(before[start : x.dim]) != 1:
        return NotImplemented
    return x.repeated(math.prod(before[x.dim + 1 : end + 1])).at(start)


def view(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """``view`` and ``reshape``: channels stay a dimension of their own, or are the first of several made one.

    With a number of features written out they would not survive a resize.
    """
    x, before, after = tracer.channels(first(node)), shape_of(first(node)), shape_of(node)
    if x is None or len(node.args) < 2:
        return NotImplemented
    sizes = tuple(node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:])
    if len(sizes) != len(after):
        return NotImplemented
    merged = [math.prod(before[x.dim + 1 : end]) for end in range(x.dim + 1, len(before) + 1)]
    for dim, width in enumerate(after):
        times, rest = divmod(width, before[x.dim])
        aligned = math.prod(after[:dim]) == math.prod(before[: x.dim])
        if aligned and not rest and times in merged and _follows(tracer, node, x, sizes, dim):
            return x.repeated(times).at(dim)
    return NotImplemented


def _follows(tracer: "ChannelTracer", node: fx.Node, x: Channels, sizes: tuple[Any, ...], dim: int) -> bool:
    """Whether the sizes are right at any width: only ``dim`` depends on it, as -1 or as a width that is tied to x."""
    given = {d: value for d, size in enumerate(sizes) if isinstance(value := tracer.value(size), Size | Shape | Fixed)}
    if sizes[dim] == -1 and not given:
        return True
    size = given.get(dim)
    if len(given) != 1 or not isinstance(size, Size):
        return False
    return tracer.unify(size.of.parts, x.parts, f"{node.name} gives it the width of other channels")


def permute(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Dimensions in another order."""
    x, dims = tracer.channels(first(node)), argument(node, 1, "dims")
    if x is None or dims is None:
        return NotImplemented
    order: Any = dims if isinstance(dims, tuple | list) else node.args[1:]
    return x.at([d % len(order) for d in order].index(x.dim))


def transpose(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Two dimensions swapped."""
    x = tracer.channels(first(node))
    a, b = (argument(node, i, name) for i, name in ((1, "dim0"), (2, "dim1")))
    if x is None or not (isinstance(a, int) and isinstance(b, int)):
        return NotImplemented
    dims = len(shape_of(node))
    a, b = a % dims, b % dims
    return x.at({a: b, b: a}.get(x.dim, x.dim))


def unsqueeze(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """A new dimension of size 1."""
    x, dim = tracer.channels(first(node)), argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    return x.at(x.dim + (dim % len(shape_of(node)) <= x.dim))


def squeeze(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Dimensions of size 1 taken away; without ``dim`` a single channel would go as well."""
    x, before = tracer.channels(first(node)), shape_of(first(node))
    dim = argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    if dim is None:
        return tracer.stop(node, f"a squeeze without a dimension ({node.name}), which would drop a single channel")
    dims = [d % len(before) for d in _listed(dim)]
    return NotImplemented if x.dim in dims else _without(x, [d for d in dims if before[d] == 1])


def reduce(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """A mean, sum or maximum over other dimensions than the channels'."""
    x, dims = tracer.channels(first(node)), argument(node, 1, "dim")
    if x is None or dims is None:
        return NotImplemented
    count = len(shape_of(first(node)))
    dims = [d % count for d in _listed(dims)]
    if x.dim in dims or len(shape_of(node)) not in (count, count - len(dims)):
        return NotImplemented
    return x if len(shape_of(node)) == count else _without(x, dims)


def _without(x: Channels, dims: list[int]) -> Channels:
    return x.at(x.dim - sum(d < x.dim for d in dims))


def _listed(dims: Any) -> list[int]:
    return list(dims) if isinstance(dims, tuple | list) else [dims]


def index(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """``x[...]``: of a tensor, anywhere but along its images and channels; of a shape, one size."""
    of, at = tracer.value(node.args[0]), node.args[1]
    if isinstance(of, Shape):
        return _size(of, at)
    if not isinstance(of, Channels) or any(isinstance(tracer.value(n), Size) for n in node.all_input_nodes):
        return NotImplemented
    at = at if isinstance(at, tuple) else (at,)
    if not all(i is None or type(i) in (int, slice) for i in at):
        return NotImplemented
    given = sum(i is not None for i in at)
    at = (*at, *[slice(None)] * (len(shape_of(node.args[0])) - given))
    taken = [position for position, i in enumerate(at) if i is not None]
    if at[taken[0]] != slice(None) or at[taken[of.dim]] != slice(None):
        return NotImplemented
    return of.at(sum(not isinstance(i, int) for i in at[: taken[of.dim]]))


def size(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """``x.size()``, ``x.size(dim)``."""
    x, dim = tracer.channels(node.args[0]), argument(node, 1, "dim")
    if x is None:
        return NotImplemented
    shape = Shape(x, len(shape_of(node.args[0])))
    return shape if dim is None else _size(shape, dim)


def attribute(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """``x.shape`` and the like."""
    x = tracer.channels(node.args[0])
    if x is None or node.args[1] not in ("shape", "ndim", "dtype", "device"):
        return NotImplemented
    return Shape(x, len(shape_of(node.args[0]))) if node.args[1] == "shape" else None


def metadata(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Something that does not follow a width, such as the number of dimensions."""
    return None


def _size(shape: Shape, at: Any) -> Any:
    if isinstance(at, slice) and all(i is None or isinstance(i, int) for i in (at.start, at.stop, at.step)):
        return NotImplemented if shape.of.dim in range(shape.dims)[at] else None
    if not isinstance(at, int):
        return NotImplemented
    return Size(shape.of) if at % shape.dims == shape.of.dim else None
