"""What layers with a width do to channels: convolutions, linear layers, normalisations.

A handler takes the tracer and the node and returns what is known of the node's output, or NotImplemented where it does
not understand this use of the layer (its channels are then frozen).
"""

import math
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, TracedSlice
from pfs_core.channels.nodes import first, shape_of
from pfs_core.channels.tracer import ChannelTracer

Handler = Callable[[ChannelTracer, fx.Node], Any]
"""Takes the tracer and a node, and returns a :data:`~pfs_core.channels.abstract_values.Value` or NotImplemented."""


def convolution(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a convolution: it mixes the channels of its input into a new group, except for a depthwise one.

    A grouped convolution keeps the widths of both sides a multiple of its groups. A transposed one reads and writes
    channels in the same way.
    """
    conv, parts = tracer.module(node), tracer.parts_of_dim(first(node), 1)
    if parts is None:
        return NotImplemented
    transposed = isinstance(conv, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    # The kernel is applied once per pixel of the output, or of the input where the convolution is transposed. The first
    # dimension may be a multiple of the batch, where the network has put another one into it.
    images, _, *size = shape_of(first(node) if transposed else node)
    pixels = images * math.prod(size) // tracer.batch
    kernel = math.prod(conv.kernel_size)
    if conv.groups == conv.in_channels > 1 and not transposed:
        return _depthwise(tracer, node, parts, pixels * kernel, kernel)
    if conv.groups > 1 and not tracer.require_multiple(parts, conv.groups):
        return NotImplemented
    out = tracer.write_group(node, conv.out_channels, dim=1)
    tracer.require_multiple(out.parts, conv.groups)
    tracer.read_channels(node, parts)
    new = tracer.first_call(node)
    tracer.add_cost(node, (parts, out.parts), pixels * kernel, kernel if new else 0, conv.groups)
    if conv.bias is not None:
        tracer.add_cost(node, (out.parts,), 0, new)
    return out


def _depthwise(
    tracer: ChannelTracer, node: fx.Node, parts: tuple[TracedSlice, ...], macs: int, kernel: int
) -> Channels:
    """Handle a depthwise convolution, which keeps the groups: every channel becomes one or several of its own."""
    conv = tracer.module(node)
    out = Channels(1, parts).repeated(conv.out_channels // conv.in_channels)
    tracer.add_axis(node, "depthwise", parts)
    tracer.add_axis(node, "writes", out.parts)
    new = tracer.first_call(node)
    params_per_channel = kernel if conv.bias is None else kernel + 1
    tracer.add_cost(node, (out.parts,), macs, params_per_channel if new else 0)
    # Without a bias zeros stay zeros, so that earlier gates still work. With one a masked channel is no longer 0, but
    # the convolution's own output can be masked.
    return out if conv.bias is None else out.gated_by([str(node.target)])


def linear(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a linear layer: it mixes the last dimension, where a channel is several features after a flatten."""
    layer, parts = tracer.module(node), tracer.parts_of_dim(first(node), -1)
    if parts is None:
        return NotImplemented
    shape = shape_of(node)
    positions = math.prod(shape[:-1]) // tracer.batch
    out = tracer.write_group(node, layer.out_features, dim=len(shape) - 1)
    tracer.read_channels(node, parts)
    new = tracer.first_call(node)
    tracer.add_cost(node, (parts, out.parts), positions, new)
    if layer.bias is not None:
        tracer.add_cost(node, (out.parts,), 0, new)
    return out


def batch_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation of each channel by itself, which becomes the gate of the channels.

    It replaces the gates before it, so that a group is gated at the last BatchNorm before its channels are mixed. An
    earlier gate would not do: BatchNorm does not map 0 to 0 (a channel that is masked in front of it leaves it as a
    constant, its shift), and it divides a factor out again, so that almost no gradient would reach such a gate: 0.4% in
    MobileNet-V1 (``docs/placement.md``). With the placement ``official`` the first BatchNorm keeps the gate all the
    same, as in the paper's released code.
    """
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1:
        return NotImplemented
    name = str(node.target)
    tracer.add_axis(node, "norm", x.parts)
    if norm.affine:
        tracer.add_cost(node, (x.parts,), 0, 2 if tracer.first_call(node) else 0)
    gated = x.gated_by([name])
    if tracer.placement == "last":
        return gated
    pairs = zip(x.parts, gated.parts, strict=True)
    return Channels(1, tuple(old if any(map(tracer.is_batch_norm, old.gates)) else new for old, new in pairs))


def layer_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation over the channels of the last dimension: its output depends on how many there are."""
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or len(norm.normalized_shape) != 1 or x.dim != len(shape_of(node)) - 1:
        return NotImplemented
    return _over_channels(tracer, node, x, norm)


def group_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation over groups of channels, which keeps the width a multiple of the groups."""
    norm, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1 or not tracer.require_multiple(x.parts, norm.num_groups):
        return NotImplemented
    return _over_channels(tracer, node, x, norm)


def _over_channels(tracer: ChannelTracer, node: fx.Node, x: Channels, norm: Any) -> Channels:
    """Record a normalisation over channels: a masked channel would still count in its mean, an absent one does not."""
    tracer.forbid_gating(x.parts, f"{node.target} normalises over its channels")
    tracer.add_axis(node, "norm", x.parts)
    parameters = sum(p is not None for p in (norm.weight, norm.bias))
    tracer.add_cost(node, (x.parts,), 0, parameters if tracer.first_call(node) else 0)
    return x


def prelu(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a PReLU with a single slope or one per channel; 0 stays 0."""
    layer, x = tracer.module(node), tracer.channels(first(node))
    if x is None or x.dim != 1:
        return NotImplemented
    if layer.num_parameters > 1:
        tracer.add_axis(node, "scale", x.parts)
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
"""The handler of every layer that has a width or parameters."""
