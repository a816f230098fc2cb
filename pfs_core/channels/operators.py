"""What each operation does to channel groups: one handler an operation, found by type, function or method name.

A handler takes the walk and the node and returns the channels of the node's output, or NotImplemented where it does
not understand this use of the operation (its channels are then frozen). To support an operation, add a handler.
"""

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

if TYPE_CHECKING:
    from pfs_core.channels.trace import Walk

Handler = Callable[["Walk", fx.Node], Any]


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's output; () if that is not a single tensor."""
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return tuple(getattr(meta, "shape", ()))


def convolution(walk: "Walk", node: fx.Node) -> Any:
    """Mixes its input's channels into a new group; a depthwise one keeps the group."""
    conv, x = walk.module(node), walk.channels(node.args[0])
    if x is None or x.repeat != 1:
        return NotImplemented
    kernel, pixels = math.prod(conv.kernel_size), math.prod(shape_of(node)[2:])
    first = walk.first_call(node)
    if conv.groups == 1:
        out = walk.writes(node, conv.out_channels)
        walk.reads(node, x)
        walk.count(node, (x, out), pixels * kernel, kernel * first)
        if conv.bias is not None:
            walk.count(node, (out,), 0, first)
        return out
    if conv.groups == conv.in_channels == conv.out_channels:
        walk.member(node, x, "depthwise")
        walk.count(node, (x,), pixels * kernel, (kernel + (conv.bias is not None)) * first)
        return x if conv.bias is None else x.lose_gates(f"no BatchNorm after the bias of {node.target}")
    return NotImplemented


def linear(walk: "Walk", node: fx.Node) -> Any:
    """Mixes features [N, F]; after a flatten each channel is ``repeat`` features."""
    layer, x = walk.module(node), walk.channels(node.args[0])
    if x is None or len(shape_of(node)) != 2:
        return NotImplemented
    first = walk.first_call(node)
    out = walk.writes(node, layer.out_features)
    walk.reads(node, x)
    walk.count(node, (x, out), x.repeat, x.repeat * first)
    if layer.bias is not None:
        walk.count(node, (out,), 0, first)
    return out


def batch_norm(walk: "Walk", node: fx.Node) -> Any:
    """Scales and shifts each channel, so that its scale can gate the channel; without an affine it cannot."""
    norm, x = walk.module(node), walk.channels(node.args[0])
    if x is None or x.repeat != 1:
        return NotImplemented
    walk.member(node, x, "norm")
    if not norm.affine:
        return x.lose_gates(f"{node.target} has no scale to gate with")
    walk.count(node, (x,), 0, 2 * walk.first_call(node))
    return type(x)(x.group, gates=frozenset([str(node.target)]))


def keeps_zero(walk: "Walk", node: fx.Node) -> Any:
    """Acts on each channel alone and maps a channel of zeros to zeros: ReLU, pooling, dropout."""
    return walk.channels(node.args[0])


def moves_zero(walk: "Walk", node: fx.Node) -> Any:
    """Acts on each value alone but does not map 0 to 0: a channel masked before it is not an absent one."""
    x = walk.channels(node.args[0])
    return NotImplemented if x is None else x.lose_gates(f"{node.name} does not map 0 to 0")


def add(walk: "Walk", node: fx.Node) -> Any:
    """Ties the channels of two tensors of one shape together."""
    a, b = (walk.channels(arg) for arg in node.args[:2])
    if a is None or b is None or a.repeat != b.repeat or shape_of(node.args[0]) != shape_of(node.args[1]):
        return NotImplemented
    group = walk.join(a.group, b.group, place=node.name)
    ungated = a.ungated or b.ungated
    return type(a)(group, a.repeat, frozenset() if ungated else a.gates | b.gates, ungated)


def flatten(walk: "Walk", node: fx.Node) -> Any:
    """[N, C, H, W] to [N, C*H*W]: each channel becomes H*W neighbouring features."""
    x = walk.channels(node.args[0])
    before, after = shape_of(node.args[0]), shape_of(node)
    if x is None or len(after) != 2 or after[0] != before[0]:
        return NotImplemented
    return type(x)(x.group, x.repeat * math.prod(before[2:]), x.gates, x.ungated)


def view(walk: "Walk", node: fx.Node) -> Any:
    """``x.view(n, -1)`` is a flatten; with a number of features written out it would not survive a resize."""
    if len(node.args) < 2:
        return NotImplemented
    sizes = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
    return flatten(walk, node) if len(sizes) == 2 and sizes[1] == -1 else NotImplemented


def metadata(walk: "Walk", node: fx.Node) -> Any:
    """Reads a shape, not values."""
    return None


def attribute(walk: "Walk", node: fx.Node) -> Any:
    """``x.shape`` and the like."""
    return None if node.args[1] in ("shape", "ndim", "dtype", "device") else NotImplemented


def item(walk: "Walk", node: fx.Node) -> Any:
    """Indexing into a shape; indexing into a tensor, or taking one out of several, is not understood."""
    return NotImplemented if walk.channels(node.args[0]) is not None or shape_of(node) else None


MODULES: dict[type, Handler] = {
    nn.Conv2d: convolution,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.Flatten: flatten,
}
FUNCTIONS: dict[Any, Handler] = {
    operator.add: add,
    operator.iadd: add,
    torch.add: add,
    torch.flatten: flatten,
    getattr: attribute,
    operator.getitem: item,
}
METHODS: dict[str, Handler] = {
    "add": add,
    "add_": add,
    "flatten": flatten,
    "view": view,
    "reshape": view,
    "size": metadata,
    "dim": metadata,
    "contiguous": keeps_zero,
}

KEEP_ZERO_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Tanh,
    nn.Softsign, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
KEEP_ZERO_FUNCTIONS = (
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, torch.tanh, F.dropout,
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
)  # fmt: skip
MODULES |= dict.fromkeys(KEEP_ZERO_MODULES, keeps_zero)
MODULES |= dict.fromkeys((nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid, nn.Hardtanh), moves_zero)
FUNCTIONS |= dict.fromkeys(KEEP_ZERO_FUNCTIONS, keeps_zero)
FUNCTIONS |= dict.fromkeys((torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus), moves_zero)
METHODS |= {"relu": keeps_zero, "relu_": keeps_zero, "tanh": keeps_zero, "sigmoid": moves_zero}
