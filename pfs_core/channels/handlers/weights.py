"""What operators do to weights before a layer uses them: reshaped, scaled, normalised along some of their dimensions.

A dimension is followed as long as each of its places holds what belongs to one channel. What mixes several places of a
dimension computes with how many there are, and that dimension is then left as it is.
"""

import math

from torch import fx

from pfs_core.channels.abstract_values import Span, Value, Weights
from pfs_core.channels.handlers.elementwise import ELEMENTWISE
from pfs_core.channels.handlers.shapes import REORDERINGS, new_order
from pfs_core.channels.nodes import argument, as_list, first, is_single_value, operation, shape_of
from pfs_core.channels.tracer import ChannelTracer

_ONE_BY_ONE = {*ELEMENTWISE, "expand", "expand_as"}
_RESHAPES = {
    *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "_unsafe_view", "unsqueeze", "squeeze"),
}
_ALONG = {
    *("flip", "rot90", "roll", "slice", "narrow", "select", "pad", "constant_pad_nd", "upsample_nearest2d"),
    *("upsample_bilinear2d", "upsample_bicubic2d", "avg_pool2d", "adaptive_avg_pool2d"),
}
_REDUCTIONS = {"mean", "sum", "var", "std", "amax", "amin", "norm", "linalg_vector_norm", "var_mean", "std_mean"}


def combine_weights(tracer: ChannelTracer, node: fx.Node) -> Value:
    """Return what an operator on weights, and on nothing that has channels, computes."""
    name = operation(node)
    if name in _ONE_BY_ONE:
        out = _one_by_one(tracer, node)
    elif name in _RESHAPES:
        out = _reshaped(tracer, node)
    elif name in REORDERINGS:
        out = _permuted(tracer, node)
    elif name in _ALONG:
        out = _along_others(tracer, node)
    elif name in _REDUCTIONS:
        out = _reduced(tracer, node)
    elif name == "_weight_norm":
        out = _weight_norm(tracer, node)
    elif name == "batch_norm":
        out = _normalised(tracer, node)
    else:
        out = Weights()
    lost = set().union(*(tracer.weights(one).spans() for one in node.all_input_nodes)) - out.spans()
    tracer.compute_with(node, Weights({0: frozenset(lost)}))
    if not out.dims or isinstance(node.meta.get("val"), tuple | list):
        tracer.compute_with(node, out)
        return tracer.fixed(node, f"is computed from weights by {name}", constant=True)
    return out


def _merged(all_dims: list[dict[int, frozenset[Span]]]) -> Weights:
    dims: dict[int, frozenset[Span]] = {}
    for one in all_dims:
        for dim, spans in one.items():
            dims[dim] = dims.get(dim, frozenset()) | spans
    return Weights(dims)


def _one_by_one(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """Values at the same places, broadcast: a dimension goes on where all operands have it or are single there."""
    shape = shape_of(node)
    operands = [one for one in node.all_input_nodes if shape_of(one)]
    found = []
    unknown: set[int] = set()
    for one in operands:
        shift, size = len(shape) - len(shape_of(one)), shape_of(one)
        spans = tracer.weights(one).dims
        found.append({dim + shift: spans[dim] for dim in spans if size[dim] == shape[dim + shift]})
        if not is_single_value(one):
            unknown |= {dim + shift for dim in range(len(size)) if size[dim] > 1 and dim not in spans}
    return Weights({dim: spans for dim, spans in _merged(found).dims.items() if dim not in unknown})


def _reshaped(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """A dimension goes on where it is one of the new ones, with as many values in front of it."""
    before, after = shape_of(first(node)), shape_of(node)
    dims = {}
    for dim, spans in tracer.weights(first(node)).dims.items():
        for new, size in enumerate(after):
            if size == before[dim] > 1 and math.prod(after[:new]) == math.prod(before[:dim]):
                dims[new] = spans
                tracer.note_view_of_weights(node, new, min(spans))
                break
    return Weights(dims)


def _permuted(tracer: ChannelTracer, node: fx.Node) -> Weights:
    dims = tracer.weights(first(node)).dims
    return Weights({new: dims[old] for new, old in enumerate(new_order(node)) if old in dims})


def _reduced(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """Only the dimensions that are not reduced go on."""
    given, count = argument(node, "dim"), len(shape_of(first(node)))
    dims = range(count) if given is None else [given] if isinstance(given, int) else given
    reduced = {dim % count for dim in dims} or set(range(count))
    keeps = bool(argument(node, "keepdim"))
    return Weights({
        dim if keeps else dim - sum(r < dim for r in reduced): spans
        for dim, spans in tracer.weights(first(node)).dims.items()
        if dim not in reduced
    })  # fmt: skip


def _along_others(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """Only the dimensions go on along which an operator moves, adds or takes no values."""
    before, name, given = shape_of(first(node)), operation(node), argument(node, "dims", "dim")
    count = len(before)
    if name in ("pad", "constant_pad_nd"):  # sizes are given in pairs, for the last dimension first
        touched = {count - 1 - place // 2 for place, size in enumerate(argument(node, "pad")) if size}
    elif name[-2:] == "2d":
        touched = {count - 2, count - 1}
    else:
        touched = {dim % count for dim in as_list(given)} if given not in (None, []) else set(range(count))
    gone = touched if name == "select" else set()
    return Weights({
        dim - sum(one < dim for one in gone): spans
        for dim, spans in tracer.weights(first(node)).dims.items()
        if dim not in touched
    })  # fmt: skip


def _weight_norm(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """``g * v / |v|`` with a norm over all dimensions of v but one."""
    dim = argument(node, "dim") or 0
    directions, sizes = tracer.weights(first(node)).dims, tracer.weights(node.args[1]).dims
    return _merged([{d: s for d, s in each.items() if d == dim} for each in (directions, sizes)])


def _normalised(tracer: ChannelTracer, node: fx.Node) -> Weights:
    """A weight standardised by ``batch_norm``, as [1, C, ...]: each row by itself, with gains of the same rows."""
    rows = {1: tracer.weights(first(node)).dims.get(1, frozenset[Span]())}
    gains = [{1: tracer.weights(argument(node, name)).dims.get(0, frozenset[Span]())} for name in ("weight", "bias")]
    return Weights({dim: spans for dim, spans in _merged([rows, *gains]).dims.items() if spans and rows[1]})
