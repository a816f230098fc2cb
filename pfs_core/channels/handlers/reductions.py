"""What operators that reduce dimensions do to channels: means, sums, maxima, softmax."""

from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor
from pfs_core.channels.handlers.elementwise import ELEMENTWISE, breaks_zero
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.nodes import argument, as_list, first, has_argument, joint, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def reduce(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a mean, sum, norm or maximum.

    Over space it keeps the channels; over the outer one of two dimensions of channels, it keeps a block of them. Over
    the channels themselves a sum, or a norm, is what it is without those that are 0, and everything else depends on how
    many there are: none may be absent, but their number may change.
    """
    if has_argument(node, "other"):  # the larger one of two tensors
        return ELEMENTWISE["maximum"](tracer, node)
    x, given = tracer.channels(first(node)), argument(node, "dim")
    if x is None:
        return NotImplemented
    count = len(shape_of(first(node)))
    dims = {d % count for d in as_list(given)} if given not in (None, []) else set(range(count))
    if x.dim in dims:
        if _leaves_zeros_out(node) and x.outer is None:
            tracer.mix(x.parts)
        else:
            tracer.forbid_gating(x.parts, f"{operation(node)} is over its channels ({place(node)})")
        return _each(node, FixedTensor(node.name, f"is the {operation(node)} of channels"))
    parts = x.parts
    if x.outer in dims:
        blocks = tracer.blocks_at_once(x.parts, shape_of(first(node))[x.outer], joint(node))
        if blocks is None:
            return NotImplemented
        parts = blocks
    first_output = node.meta["val"][0] if isinstance(node.meta["val"], tuple | list) else node.meta["val"]
    if first_output.dim() == count:
        if x.outer in dims:
            return NotImplemented
        out = Channels(x.dim, parts, x.outer)
    else:
        outer = None if x.outer is None or x.outer in dims else x.outer - sum(d < x.outer for d in dims)
        out = Channels(x.dim - sum(d < x.dim for d in dims), parts, outer)
    if operation(node) == "logsumexp":
        out = out.without_gates(f"logsumexp does not map 0 to 0 ({place(node)})")
    return _each(node, out)


def _leaves_zeros_out(node: fx.Node) -> bool:
    """Return whether a reduction is the same without the values that are 0."""
    if operation(node) in ("norm", "linalg_vector_norm"):
        order = argument(node, "ord", "p")
        return order is None or (isinstance(order, int | float) and order >= 0)
    return operation(node) == "sum"


def _each(node: fx.Node, value: Any) -> Any:
    """Return ``value`` for every output: a maximum comes with its places."""
    outputs = node.meta["val"]
    return tuple(value for _ in outputs) if isinstance(outputs, tuple | list) else value


def softmax(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a softmax: over the channels it depends on their number, elsewhere it turns 0 into something else."""
    x = tracer.channels(first(node))
    if x is None:
        return NotImplemented
    if argument(node, "dim") % len(shape_of(node)) == x.dim:
        tracer.forbid_gating(x.parts, f"{operation(node)} is over its channels ({place(node)})")
    return breaks_zero(tracer, node)


REDUCTIONS: dict[str, Handler] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "norm", "linalg_vector_norm"), reduce),
    **dict.fromkeys(("max", "min", "var_mean", "std_mean", "logsumexp", "prod"), reduce),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), softmax),
}
"""The handler of every operator that reduces dimensions."""
