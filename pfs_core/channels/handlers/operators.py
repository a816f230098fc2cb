"""What all other operations do to channels, and the tables that give each operation its handler.

The tables are by type, function or name of a method; operations of packages that are not imported here are entered by
their path. To support an operation, write a handler and enter it.
"""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, TracedSlice
from pfs_core.channels.handlers import shapes
from pfs_core.channels.handlers.layers import LAYERS, Handler
from pfs_core.channels.nodes import argument, first, shape_of
from pfs_core.channels.tracer import ChannelTracer


def keeps_zero(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operation that acts on each value alone and maps 0 to 0, such as ReLU or dropout."""
    x = tracer.channels(first(node))
    return NotImplemented if x is None else x


def breaks_zero(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operation that acts on each value alone but does not map 0 to 0, such as a sigmoid.

    A channel that is masked before it is not like an absent one: behind a sigmoid it is 1/2, which the next layer
    multiplies by its weights. So the channels lose their gates, and can be pruned only if a BatchNorm follows.
    """
    x = tracer.channels(first(node))
    return NotImplemented if x is None else x.without_gates(f"{node.name} does not map 0 to 0")


def hardtanh(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a clipping to a range, which maps 0 to 0 only if 0 is in the range."""
    layer = tracer.module(node)
    return keeps_zero(tracer, node) if layer.min_val <= 0 <= layer.max_val else breaks_zero(tracer, node)


def pool(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an operation on each channel of [N, C, ...] alone that keeps zeros, such as pooling or interpolation."""
    x = tracer.channels(first(node))
    return NotImplemented if x is None or x.dim != 1 else x


def pad(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a padding of space; channels that are padded themselves are frozen (a ResNet's shortcut of option A)."""
    x, shape = tracer.channels(first(node)), shape_of(first(node))
    sizes, mode, value = argument(node, 1, "pad"), argument(node, 2, "mode"), argument(node, 3, "value")
    if x is None or not isinstance(sizes, tuple | list):
        return NotImplemented
    if len(sizes) // 2 >= len(shape) - x.dim and shape_of(node)[x.dim] != shape[x.dim]:
        return tracer.freeze_inputs(node, f"a padding of the channels ({node.name})")
    return breaks_zero(tracer, node) if value and mode in (None, "constant") else x


def add(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle an addition: it unifies two tensors of one shape into a residual stream.

    Adding a number turns 0 into something else, so the channels lose their gates.
    """
    a, b = first(node), argument(node, 1, "other")
    x, y = tracer.channels(a), tracer.channels(b)
    if x is None or y is None:
        if (one := x or y) is not None and (isinstance(a, int | float) or isinstance(b, int | float)):
            return one.without_gates(f"{node.name} adds a number")
        return tracer.combine_with_fixed(node, tracer.value(a), tracer.value(b))
    if not _same_channels(x, y, shape_of(a), shape_of(b)):
        return NotImplemented
    if not tracer.unify(
        x.parts, y.parts, f"{node.name} adds channels with other borders", stream=f"joined at {node.name}"
    ):
        return x
    return Channels(x.dim, tuple(map(_zero_in_both, x.parts, y.parts)))


def _same_channels(x: Channels, y: Channels, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether tensors of shapes ``a`` and ``b`` have equally many channels on one dimension.

    The other dimensions may differ, since the operation broadcasts them.
    """
    return x.dim == y.dim and len(a) == len(b) and a[x.dim] == b[y.dim]


def _zero_in_both(a: TracedSlice, b: TracedSlice) -> TracedSlice:
    """Return the slice of a sum, which is 0 where both terms are: all gates of both have to mask a channel."""
    ungated = a.ungated or b.ungated
    return a._replace(gates=frozenset() if ungated else a.gates | b.gates, ungated=ungated)


def multiply(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a product: it unifies two tensors of one width, such as the factors of a squeeze-and-excitation block.

    The product of channels is 0 where one of the factors is, so the first factor that has a gate gates it. A factor of
    a single channel is broadcast over the others and must stay single.
    """
    a, b = first(node), argument(node, 1, "other")
    x, y = tracer.channels(a), tracer.channels(b)
    if x is None or y is None:
        if (one := x or y) is not None and (isinstance(a, int | float) or isinstance(b, int | float)):
            return one
        return tracer.combine_with_fixed(node, tracer.value(a), tracer.value(b))
    if x.dim != y.dim or len(shape_of(a)) != len(shape_of(b)):
        return NotImplemented
    if not _same_channels(x, y, shape_of(a), shape_of(b)):
        many, single = (x, y) if shape_of(b)[y.dim] == 1 else (y, x)
        tracer.freeze(single.parts, f"{node.name} multiplies all channels by it")
        return many
    if not tracer.unify(x.parts, y.parts, f"{node.name} multiplies channels with other borders"):
        return x
    return Channels(
        x.dim, tuple(q if p.ungated and not q.ungated else p for p, q in zip(x.parts, y.parts, strict=True))
    )


def scale(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a division by a number."""
    x = tracer.channels(first(node))
    return x if x is not None and isinstance(argument(node, 1, "other"), int | float) else NotImplemented


def expand_as(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x.expand_as(y)``, which repeats values over space; both tensors have the same channels."""
    x, y = tracer.channels(first(node)), tracer.channels(argument(node, 1, "other"))
    if x is None or y is None or x.dim != y.dim or shape_of(node.args[0])[x.dim] != shape_of(node)[x.dim]:
        return NotImplemented
    tracer.unify(x.parts, y.parts, f"{node.name} expands it to channels with other borders")
    return x


def concatenate(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a concatenation.

    Along the channels it puts one group after the other; along another dimension it unifies the channels of all
    tensors.
    """
    tensors, dim = first(node) or node.kwargs.get("tensors"), argument(node, 1, "dim", 0)
    if not isinstance(tensors, tuple | list) or not isinstance(dim, int):
        return NotImplemented
    known = [x for x in map(tracer.channels, tensors) if x is not None]
    if not known:
        return NotImplemented
    dim, channel_dim = dim % len(shape_of(node)), known[0].dim
    all_rows = [tracer.parts_of_dim(tensor, channel_dim) for tensor in tensors]
    rows = [row for row in all_rows if row is not None]
    if len(rows) < len(all_rows):
        return NotImplemented
    if dim == channel_dim:
        return Channels(dim, tuple(part for row in rows for part in row))
    out = rows[0]
    for row in rows[1:]:
        if not tracer.unify(out, row, f"{node.name} joins channels with other borders"):
            break
        out = tuple(map(_zero_in_both, out, row))
    return Channels(channel_dim, out)


MODULES: dict[type, Handler] = {**LAYERS, nn.Flatten: shapes.flatten, nn.Hardtanh: hardtanh}
FUNCTIONS: dict[Any, Handler] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, operator.sub, operator.isub, torch.sub), add),
    **dict.fromkeys((torch.maximum, torch.minimum), add),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), scale),
    **dict.fromkeys((torch.cat, torch.concat), concatenate),
    F.pad: pad,
    torch.flatten: shapes.flatten,
    torch.reshape: shapes.view,
    torch.permute: shapes.permute,
    **dict.fromkeys((torch.transpose, torch.swapaxes), shapes.transpose),
    torch.unsqueeze: shapes.unsqueeze,
    torch.squeeze: shapes.squeeze,
    **dict.fromkeys((torch.mean, torch.sum, torch.amax, torch.amin), shapes.reduce),
    getattr: shapes.attribute,
    operator.getitem: shapes.index,
}
TENSOR_METHODS: dict[str, Handler] = {
    **dict.fromkeys(("add", "add_", "sub", "sub_"), add),
    **dict.fromkeys(("mul", "mul_"), multiply),
    **dict.fromkeys(("div", "div_"), scale),
    "expand_as": expand_as,
    "flatten": shapes.flatten,
    **dict.fromkeys(("view", "reshape"), shapes.view),
    "permute": shapes.permute,
    **dict.fromkeys(("transpose", "swapaxes"), shapes.transpose),
    "unsqueeze": shapes.unsqueeze,
    "squeeze": shapes.squeeze,
    **dict.fromkeys(("mean", "sum", "amax", "amin"), shapes.reduce),
    "size": shapes.size,
    "dim": shapes.metadata,
}

SIZED = (shapes.view, shapes.index)
"""Handlers that understand a width among their arguments; for any other operation it freezes the channels."""
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
"""Functions that change their first argument, besides those whose name ends with an underscore."""
VIEWS = (
    shapes.flatten, shapes.view, shapes.permute, shapes.transpose, shapes.unsqueeze, shapes.squeeze, shapes.index,
    expand_as,
)  # fmt: skip
"""Handlers of operations whose output may share memory with their input."""
VIEW_OPERATIONS = (F.dropout, F.dropout2d, "contiguous", "detach", "float", "half", "bfloat16")
"""Other such operations: in evaluation, or where there is nothing to convert, they return their input itself."""
VIEW_MODULES = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
RECTIFIER_MODULES = (nn.ReLU, nn.ReLU6)
RECTIFIERS = (F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, "relu", "relu_")
"""Activations whose derivative at 0 is 0, so that a gate of 0 in front of them stays 0."""

_KEEP_ZERO_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Tanh,
    nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
_KEEP_ZERO_FUNCTIONS = (
    F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
    F.hardswish, F.tanh, torch.tanh, F.softsign, F.dropout, F.dropout2d, torch.abs, torch.neg, operator.neg,
    torch.clone, "torchvision.ops.stochastic_depth.stochastic_depth",
)  # fmt: skip
_KEEP_ZERO_METHODS = (
    "relu", "relu_", "tanh", "tanh_", "abs", "neg", "contiguous", "clone", "detach", "float", "half", "bfloat16",
)  # fmt: skip
_POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
)  # fmt: skip
_POOL_FUNCTIONS = (
    F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    F.interpolate,
)  # fmt: skip
MODULES |= dict.fromkeys(_KEEP_ZERO_MODULES, keeps_zero) | dict.fromkeys(_POOL_MODULES, pool)
FUNCTIONS |= dict.fromkeys(_KEEP_ZERO_FUNCTIONS, keeps_zero) | dict.fromkeys(_POOL_FUNCTIONS, pool)
TENSOR_METHODS |= dict.fromkeys(_KEEP_ZERO_METHODS, keeps_zero)
MODULES |= dict.fromkeys((nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid), breaks_zero)
FUNCTIONS |= dict.fromkeys((torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus, F.logsigmoid, torch.exp), breaks_zero)
TENSOR_METHODS |= dict.fromkeys(("sigmoid", "sigmoid_", "exp"), breaks_zero)
