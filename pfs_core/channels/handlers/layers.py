"""What layers with a width do to channels: convolutions, linear layers, normalisations.

A handler takes the walk and the node and returns what is known of the node's output, or NotImplemented where it does
not understand this use of the layer (its channels are then frozen).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, TracedSlice
from pfs_core.channels.slices import first, shape_of

if TYPE_CHECKING:
    from pfs_core.channels.tracer import ChannelTracer

Handler = Callable[["ChannelTracer", fx.Node], Any]


def convolution(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Mixes its input's channels into a new group; a depthwise one keeps the groups.

    A grouped convolution keeps both sides a multiple of its groups. A transposed one has the same shape rules.
    """
    conv, parts = tracer.module(node), tracer.parts_of_dim(first(node), 1)
    if parts is None:
        return NotImplemented
    transposed = isinstance(conv, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    images, _, *size = shape_of(first(node) if transposed else node)
    pixels = images * math.prod(size) // tracer.batch  # each is multiplied by the kernel
    kernel = math.prod(conv.kernel_size)
    if conv.groups == conv.in_channels > 1 and not transposed:
        return _depthwise(tracer, node, parts, pixels * kernel, kernel)
    if conv.groups > 1 and not tracer.require_multiple(parts, conv.groups):
        return NotImplemented
    out = tracer.writes(node, conv.out_channels, dim=1)
    tracer.require_multiple(out.parts, conv.groups)
    tracer.reads(node, parts)
    new = tracer.first_call(node)
    tracer.add_cost(node, (parts, out.parts), pixels * kernel, kernel * new, conv.groups)
    if conv.bias is not None:
        tracer.add_cost(node, (out.parts,), 0, new)
    return out


def _depthwise(
    tracer: "ChannelTracer", node: fx.Node, parts: tuple[TracedSlice, ...], macs: int, params: int
) -> Channels:
    conv = tracer.module(node)
    out = Channels(1, parts).repeated(conv.out_channels // conv.in_channels)
    tracer.spans(node, "depthwise", parts)
    tracer.spans(node, "writes", out.parts)
    new = tracer.first_call(node)
    tracer.add_cost(node, (out.parts,), macs, (params + (conv.bias is not None)) * new)
    return out if conv.bias is None else out.gated_by([str(node.target)])


def linear(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Mixes the features of the last dimension; after a flatten each channel is several of them."""
    layer, parts = tracer.module(node), tracer.parts_of_dim(first(node), -1)
    if parts is None:
        return NotImplemented
    shape = shape_of(node)
    positions = math.prod(shape[:-1]) // tracer.batch
    out = tracer.writes(node, layer.out_features, dim=len(shape) - 1)
    tracer.reads(node, parts)
    new = tracer.first_call(node)
    tracer.add_cost(node, (parts, out.parts), positions, new)
    if layer.bias is not None:
        tracer.add_cost(node, (out.parts,), 0, new)
    return out


def batch_norm(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Normalises each channel by itself, and can set it to 0: the gate of what comes in."""
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1:
        return NotImplemented
    name = str(node.target)
    tracer.spans(node, "norm", x.parts)
    if norm.affine:
        tracer.add_cost(node, (x.parts,), 0, 2 * tracer.first_call(node))
    gated = x.gated_by([name])
    if tracer.placement == "last":
        return gated
    parts = zip(x.parts, gated.parts, strict=True)
    return Channels(1, tuple(old if _behind_batch_norm(tracer, old) else new for old, new in parts))


def _behind_batch_norm(tracer: "ChannelTracer", part: TracedSlice) -> bool:
    return any(isinstance(tracer.modules[gate], nn.modules.batchnorm._BatchNorm) for gate in part.gates)


def layer_norm(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Normalises over the channels: its output depends on how many there are."""
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or len(norm.normalized_shape) != 1 or x.dim != len(shape_of(node)) - 1:
        return NotImplemented
    return _over_channels(tracer, node, x, norm)


def group_norm(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """Normalises over groups of channels: the width stays a multiple of the groups."""
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1 or not tracer.require_multiple(x.parts, norm.num_groups):
        return NotImplemented
    return _over_channels(tracer, node, x, norm)


def _over_channels(tracer: "ChannelTracer", node: fx.Node, x: Channels, norm: Any) -> Channels:
    tracer.forbid_gating(x.parts, f"{node.target} normalises over its channels")
    tracer.spans(node, "norm", x.parts)
    parameters = sum(p is not None for p in (norm.weight, norm.bias))
    tracer.add_cost(node, (x.parts,), 0, parameters * tracer.first_call(node))
    return x


def prelu(tracer: "ChannelTracer", node: fx.Node) -> Any:
    """One slope, or one a channel; 0 stays 0."""
    layer, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1:
        return NotImplemented
    if layer.num_parameters > 1:
        tracer.spans(node, "scale", x.parts)
        tracer.add_cost(node, (x.parts,), 0, tracer.first_call(node))
    return x


LAYERS: dict[type, Handler] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution),
    nn.Linear: linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), batch_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), batch_norm),
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.PReLU: prelu,
}
