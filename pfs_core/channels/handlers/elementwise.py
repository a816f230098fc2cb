"""What operators on single values do to channels: activations, sums and products of two tensors."""

from dataclasses import replace
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor
from pfs_core.channels.groups import zero_in_both, zero_in_one
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.nodes import argument, first, is_residual, joint, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def keeps_zero(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operator that acts on each value alone and maps 0 to 0, such as ReLU or dropout."""
    x = tracer.channels(first(node))
    return NotImplemented if x is None else x


def breaks_zero(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operator that acts on each value alone but does not map 0 to 0, such as a sigmoid.

    A channel that is masked before it is not like an absent one: behind a sigmoid it is 1/2, which the next layer
    multiplies by its weights. So the channels lose their gates, and can be pruned only if a BatchNorm follows.
    """
    x = tracer.channels(first(node))
    return NotImplemented if x is None else x.without_gates(f"{operation(node)} does not map 0 to 0 ({place(node)})")


def fresh(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``new_zeros`` and the like, which take a tensor's shape at most, and none of its values."""
    if shape_of(node) == shape_of(first(node)):
        return keeps_zero(tracer, node) if operation(node) == "new_zeros" else breaks_zero(tracer, node)
    number = {"new_zeros": 0, "new_ones": 1, "new_full": argument(node, "fill_value")}.get(operation(node))
    return FixedTensor(node.name, f"comes out of {operation(node)} ({place(node)})", constant=True, number=number)


def clip(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a clipping to a range, which maps 0 to 0 only if 0 is in the range."""
    given = argument(node, "min", "min_val"), argument(node, "max", "max_val")
    low, high = map(tracer.number, given)
    if any(number is None and bound is not None for number, bound in zip((low, high), given, strict=True)):
        return NotImplemented
    inside = (low is None or low <= 0) and (high is None or high >= 0)
    return keeps_zero(tracer, node) if inside else breaks_zero(tracer, node)


def threshold(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a threshold: 0 stays 0 if it is above the threshold, or else is replaced by 0."""
    stays = argument(node, "threshold") < 0 or argument(node, "value") == 0
    return keeps_zero(tracer, node) if stays else breaks_zero(tracer, node)


def power(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a power; 0 stays 0 if the exponent is a positive number."""
    exponent = argument(node, "exponent")
    if not isinstance(exponent, int | float):
        x = _in_result(tracer, node, first(node))
        if x is None or not along(tracer, node, x, exponent):
            return NotImplemented
        return x.without_gates(f"the exponent of {operation(node)} is computed ({place(node)})")
    return keeps_zero(tracer, node) if exponent > 0 else breaks_zero(tracer, node)


def add(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an addition: it unifies two tensors of one shape into a residual stream.

    Adding anything else turns 0 into something else, so the channels lose their gates; but 0 itself, with which
    Python's ``sum`` begins, changes nothing, and the larger one of a channel and 0 is a ReLU.
    """
    a, b = first(node), argument(node, "other")
    x, y = _in_result(tracer, node, a), _in_result(tracer, node, b)
    if x is None or y is None:
        number = tracer.number(b if y is None else a)
        if number is not None and _with_zero(operation(node), number) == 0:
            return _with_other(tracer, node, "")
        what = "another tensor" if number is None else "a number"
        return _with_other(tracer, node, f"{operation(node)} adds {what} ({place(node)})")
    if (many := _over_all(tracer, node, x, y)) is not None:
        return many.without_gates(f"{operation(node)} adds another tensor to all channels ({place(node)})")
    if not _same_channels(node, x, y):
        return NotImplemented
    stream = f"joined in {joint(node)}" if is_residual(node, [a, b]) else ""
    if not tracer.unify(x.parts, y.parts, f"{joint(node)} adds channels with other borders", stream):
        return x
    return replace(x, parts=tuple(map(zero_in_both, *tracer.matched(x.parts, y.parts))))


def _with_zero(operation: str, number: float) -> float:
    """Return what becomes of the 0 of a masked channel where a number is added, or the larger or smaller one taken."""
    if operation in ("maximum", "fmax"):
        return max(number, 0)
    return min(number, 0) if operation in ("minimum", "fmin") else number


def multiply(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a product: it unifies two tensors of one width, such as the factors of a squeeze-and-excitation block.

    The product of channels is 0 where one of the factors is, so the first factor that has a gate gates it. A factor of
    a single channel is broadcast over the others and must stay single.
    """
    x, y = _in_result(tracer, node, first(node)), _in_result(tracer, node, argument(node, "other"))
    if x is None or y is None:
        return _with_other(tracer, node, "")
    if (many := _over_all(tracer, node, x, y)) is not None:
        return many
    x, y = _one_block(tracer, node, x, y), _one_block(tracer, node, y, x)
    if not _same_channels(node, x, y):
        return NotImplemented
    if not tracer.unify(x.parts, y.parts, f"{joint(node)} multiplies channels with other borders"):
        return x
    return replace(x, parts=tuple(map(zero_in_one, *tracer.matched(x.parts, y.parts))))


def compare(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a comparison: it unifies two tensors of one width, and what it says of a 0 may be 1."""
    out = multiply(tracer, node)
    return out.without_gates(f"{operation(node)} ({place(node)})") if isinstance(out, Channels) else out


def choose(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``where`` and ``masked_fill``: 0 stays 0 where both of what is chosen from are 0."""
    condition, *chosen = first(node), argument(node, "self"), argument(node, "other")
    if operation(node) == "masked_fill":
        condition, chosen = argument(node, "mask"), [first(node), argument(node, "value")]
    operands = [*chosen, condition]
    rows = [_in_result(tracer, node, operand) for operand in operands]
    known = [x for x in rows if x is not None]
    dim = known[0].dim
    if any(x.outer is not None or x.dim != dim for x in known):
        return NotImplemented
    for operand, x in zip(operands, rows, strict=True):
        if x is None and not along(tracer, node, known[0], operand):
            return NotImplemented
        if x is not None and _size(node, operand, dim) != shape_of(node)[dim]:
            return NotImplemented
    for x in known[1:]:
        if not tracer.unify(known[0].parts, x.parts, f"{joint(node)} chooses from channels with other borders"):
            return known[0]
    out = known[0]
    values = [x for x in rows[:2] if x is not None]
    for x in values:
        out = replace(out, parts=tuple(map(zero_in_both, *tracer.matched(x.parts, values[0].parts))))
    if values and all(x is not None or tracer.number(operand) == 0 for operand, x in zip(chosen, rows, strict=False)):
        return out
    return out.without_gates(f"{operation(node)} sets another value ({place(node)})")


def mix(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``lerp``, a weighted mean of two tensors: it is 0 where both are, whatever the weights are."""
    start, end = first(node), argument(node, "end")
    rows = _unified(tracer, node, [start, end, argument(node, "weight")], is_residual(node, [start, end]))
    if rows is None or not rows[0] or not rows[1]:
        return NotImplemented
    return replace(rows[0], parts=tuple(map(zero_in_both, rows[0].parts, rows[1].parts)))


def _unified(tracer: ChannelTracer, node: fx.Node, operands: list[Any], residual: bool) -> list[Channels | None] | None:
    """Unify the channels of several operands, of which others may be the same for all channels, or weights of each.

    Args:
        tracer: the tracer.
        node: the operator.
        operands: what it is given, of which the first has channels.
        residual: whether it makes a residual stream of them.

    Returns:
        The channels of each operand, slice by slice the same, and None for the others; None where that does not go.
    """
    rows = [_in_result(tracer, node, operand) for operand in operands]
    known = rows[0]
    if known is None:
        return None
    for operand, x in zip(operands, rows, strict=True):
        if x is None and not along(tracer, node, known, operand):
            return None
        alike = x is None or (x.dim, x.outer) == (known.dim, known.outer)
        if not alike or (x is not None and _size(node, operand, x.dim) != shape_of(node)[x.dim]):
            return None
    stream = f"joined in {joint(node)}" if residual else ""
    for x in rows[1:]:
        if x and not tracer.unify(known.parts, x.parts, f"{joint(node)} joins channels with other borders", stream):
            return None
    return [x and replace(x, parts=tracer.matched(known.parts, x.parts)[1]) for x in rows]


def add_product(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``addcmul``: channels, or weights of each, plus a product of channels by others, or by weights of each."""
    added, factors = first(node), (argument(node, "tensor1"), argument(node, "tensor2"))
    with_channels = [one for one in factors if tracer.channels(one) is not None]
    if with_channels and tracer.channels(added) is not None:
        rows = _unified(tracer, node, [added, *factors], any(is_residual(node, [added, one]) for one in factors))
        if rows is None or not rows[0]:
            return NotImplemented
        product, *others = [x.parts for x in rows[1:] if x]
        for other in others:
            product = tuple(map(zero_in_one, product, other))
        return replace(rows[0], parts=tuple(map(zero_in_both, rows[0].parts, product)))
    if len(with_channels) != 1:
        return NotImplemented
    x = _in_result(tracer, node, with_channels[0])
    for other in (added, *(one for one in factors if one is not with_channels[0])):
        if x is not None and not along(tracer, node, x, other):
            return NotImplemented
    return NotImplemented if x is None else x.without_gates(f"addcmul adds another tensor ({place(node)})")


def divide(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a division: a masked channel stays 0 unless what it is divided by has been masked as well."""
    x, y = _in_result(tracer, node, first(node)), _in_result(tracer, node, argument(node, "other"))
    if x is None:
        return NotImplemented
    if y is None:
        return _with_other(tracer, node, "")
    if (many := _over_all(tracer, node, x, y)) is not None:
        return NotImplemented if many is y else many
    if not _same_channels(node, x, y):
        return NotImplemented
    if not tracer.unify(x.parts, y.parts, f"{joint(node)} divides channels with other borders"):
        return x
    ungated = f"{operation(node)} divides by channels that a gate can set to 0 ({place(node)})"
    pairs = zip(*tracer.matched(x.parts, y.parts), strict=True)
    return replace(x, parts=tuple(a if b.ungated else a.without_gates(ungated) for a, b in pairs))


def _in_result(tracer: ChannelTracer, node: fx.Node, operand: Any) -> Channels | None:
    """Return the channels of an operand, on the dimension on which they are in the result."""
    x = tracer.channels(operand)
    return None if x is None else x.shifted(len(shape_of(node)) - len(shape_of(operand)))


def _size(node: fx.Node, operand: Any, dim: int) -> int:
    """Return the size that an operand has on dimension ``dim`` of the result: 1 where it is broadcast along it."""
    shape = shape_of(operand)
    at = dim - len(shape_of(node)) + len(shape)
    return shape[at] if at >= 0 else 1


def _with_other(tracer: ChannelTracer, node: fx.Node, ungated: str) -> Any:
    """Return channels combined with a number, weights, or a tensor that cannot change.

    Args:
        tracer: the tracer.
        node: the operator, of which one operand has channels.
        ungated: what it does to the 0 of a masked channel; empty where it leaves it.
    """
    one, other = first(node), argument(node, "other")
    if tracer.channels(one) is None:
        one, other = other, one
    x = _in_result(tracer, node, one)
    if x is None or _size(node, one, x.dim) != shape_of(node)[x.dim]:  # a single channel, spread over many others
        return NotImplemented
    out = x.without_gates(ungated) if ungated else x
    if along(tracer, node, x, other):
        return out
    if x.outer is not None or not isinstance(value := tracer.value(other), FixedTensor):
        return NotImplemented
    tracer.freeze(x.parts, f"{joint(node)} combines it with a tensor that {value.reason}")
    return FixedTensor(node.name, value.reason)


def along(tracer: ChannelTracer, node: fx.Node, x: Channels, other: Any) -> bool:
    """Return whether ``other`` is the same for all channels, or weights with a value for each, which go with them."""
    if _size(node, other, x.dim) == 1 and (x.outer is None or _size(node, other, x.outer) == 1):
        return True
    rows = tracer.tensors(other, x.dim - len(shape_of(node)) + len(shape_of(other)))
    if x.outer is not None or not rows:
        return False
    tracer.add_axis(rows[0].name, "scale", x.parts, rows)
    return True


def _over_all(tracer: ChannelTracer, node: fx.Node, x: Channels, y: Channels) -> Channels | None:
    """Return the channels of two operands of which one is the same for all of those: the other is then fixed.

    That is one of a single channel, also where it has been repeated, or one whose channels are on a dimension that is
    none of channels in the first. None where it is not so.
    """
    operands = (first(node), x), (argument(node, "other"), y)
    for (many, a), (single, b) in (operands, operands[::-1]):
        across = a.dim != b.dim and a.outer is None and b.outer is None and _size(node, single, a.dim) == 1
        if across and _size(node, many, b.dim) == shape_of(node)[b.dim] == _size(node, single, b.dim) > 1:
            tracer.freeze(b.parts, f"{joint(node)} spreads it over all channels")
            return a
    alone, other_alone = (
        _size(node, operand, one.dim) == 1 or tracer.is_one_channel(one.parts) for operand, one in operands
    )
    if x.dim != y.dim or x.outer != y.outer or alone == other_alone:
        return None
    tracer.freeze((x if alone else y).parts, f"{joint(node)} spreads it over all channels")
    return y if alone else x


def _one_block(tracer: ChannelTracer, node: fx.Node, x: Channels, other: Channels) -> Channels:
    """Return channels in blocks as one block, where the other operand has the same channels for every block."""
    if x.outer is None or other.outer is not None or x.dim != other.dim:
        return x
    block = tracer.blocks_at_once(x.parts, shape_of(node)[x.outer], joint(node))
    return x if block is None else Channels(x.dim, block)


def _same_channels(node: fx.Node, x: Channels, y: Channels) -> bool:
    """Return whether two operands have equally many channels on one dimension of the result.

    The other dimensions may differ, since the operator broadcasts them.
    """
    sizes = _size(node, first(node), x.dim), _size(node, argument(node, "other"), y.dim)
    return (x.dim, x.outer, sizes[0]) == (y.dim, y.outer, sizes[1])


KEEP_ZERO = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "tanh", "softsign"),
    *("hardshrink", "softshrink", "abs", "neg", "sqrt", "square", "sin", "atan", "asinh", "erf", "sign", "expm1"),
    *("log1p", "round", "floor", "ceil", "trunc", "nan_to_num", "dropout", "feature_dropout", "clone", "contiguous"),
    *("detach", "alias", "to", "type_as", "_to_copy", "float", "lift_fresh", "lift_fresh_copy", "zeros_like", "rrelu"),
)
BREAK_ZERO = (
    *("sigmoid", "hardsigmoid", "softplus", "log_sigmoid", "exp", "exp2", "cos", "log", "rsqrt", "reciprocal", "logit"),
    *("ones_like", "full_like", "rand_like", "randn_like", "alpha_dropout", "feature_alpha_dropout"),
)
ELEMENTWISE: dict[str, Handler] = {
    **dict.fromkeys(KEEP_ZERO, keeps_zero),
    **dict.fromkeys(BREAK_ZERO, breaks_zero),
    **dict.fromkeys(("clamp", "clip", "hardtanh", "clamp_min", "clamp_max"), clip),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), fresh),
    "pow": power,
    **dict.fromkeys(("add", "sub", "rsub", "maximum", "minimum", "fmax", "fmin"), add),
    **dict.fromkeys(("mul", "multiply"), multiply),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), compare),
    **dict.fromkeys(("where", "masked_fill"), choose),
    "threshold": threshold,
    "addcmul": add_product,
    "lerp": mix,
    **dict.fromkeys(("div", "divide", "true_divide"), divide),
}
"""The handler of every operator on single values."""
