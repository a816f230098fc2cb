"""What layers with weights do to channels: convolutions, linear layers, normalisations.

A handler takes the tracer and the node and returns what is known of the node's output, or NotImplemented where it does
not understand this use of the layer (its channels are then frozen).
"""

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor, Span, Weights
from pfs_core.channels.elements import AxisTensor
from pfs_core.channels.groups import Parts
from pfs_core.channels.nodes import argument, first, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer, Layer

Handler = Callable[[ChannelTracer, fx.Node], Any]
"""Takes the tracer and a node, and returns a :data:`~pfs_core.channels.abstract_values.Value` or NotImplemented."""


def convolution(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a convolution: it mixes the channels of its input into a new group, except for a depthwise one.

    A grouped convolution keeps the widths of both sides a multiple of its groups. A transposed one reads and writes
    channels in the same way, with the dimensions of its weight the other way round.
    """
    transposed = operation(node).startswith("conv_transpose")
    weight, bias, groups = argument(node, "weight"), argument(node, "bias"), argument(node, "groups")
    size, shape = shape_of(weight), shape_of(first(node))
    channel_dim = len(shape) - len(size) + 1
    x = tracer.channels(first(node))
    if x is not None and x.dim > channel_dim:
        return _along_channels(tracer, node, x)
    parts = tracer.parts_of_dim(first(node), channel_dim)
    if parts is None:
        return NotImplemented
    # The kernel is applied once per pixel of the output, or of the input where the convolution is transposed.
    positions = list(shape if transposed else shape_of(node))
    del positions[channel_dim]
    pixels = math.prod(positions)
    kernel = math.prod(size[2:])
    layer = tracer.layer(node, weight)
    if groups == shape[channel_dim] > 1 and not transposed:
        return _depthwise(tracer, node, layer, Channels(channel_dim, parts), pixels * kernel)
    if groups > 1:
        grouped = _grouped(tracer, parts, groups)
        if grouped is None:
            return NotImplemented
        parts = grouped
    # Dimension 1 of a weight spans only one of the groups.
    reads, writes = (0, 1) if transposed else (1, 0)
    rows = tracer.tensors(weight, writes, groups if writes else 1)
    columns = tracer.tensors(weight, reads, groups if reads else 1)
    out = tracer.write_group(layer, shape_of(node), channel_dim, [*rows, *tracer.tensors(bias, 0)])
    _freeze_computed(tracer, node, layer, (parts, columns), (out.parts, rows))
    tracer.require_multiple(out.parts, groups)
    tracer.read_channels(layer.name, parts, columns)
    tracer.add_macs(layer.name, (parts, out.parts), pixels * kernel, groups)
    return out


def _depthwise(tracer: ChannelTracer, node: fx.Node, layer: Layer, x: Channels, macs: int) -> Any:
    """Handle a depthwise convolution, which keeps the groups: every channel becomes one or several of its own."""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    rows, value = tracer.tensors(weight, 0), tracer.value(weight)
    if not rows:  # it may be one kernel, as many times as there are channels
        if not isinstance(value, Weights) and not (isinstance(value, FixedTensor) and value.constant):
            return NotImplemented
        layer = Layer(f"<{node.name}>", "")
    out = x.repeated(shape_of(weight)[0] // argument(node, "groups"))
    tracer.add_axis(layer.name, "depthwise", x.parts)
    tracer.note_passed(node, argument(node, "groups"), x.parts)
    trailing = len(shape_of(node)) - 1 - x.dim
    tracer.add_axis(layer.name, "writes", out.parts, [*rows, *tracer.tensors(bias, 0)], trailing)
    tracer.add_macs(layer.name, (out.parts,), macs)
    # Without a bias zeros stay zeros, so that earlier gates still work. With one a masked channel is no longer 0, but
    # the convolution's own output can be masked.
    if bias is None:
        return out
    return out.gated_by([layer.gate]) if layer.gate else out.without_gates(f"{layer.name} adds a bias")


def _grouped(tracer: ChannelTracer, parts: Parts, groups: int) -> Parts | None:
    """Return the channels of a convolution of several groups, None where the groups do not begin with channels.

    Within one channel group, the channels at the same place of every group of the convolution come and go together.
    Where each group of the convolution reads channel groups of its own, those are unified.
    """
    if tracer.require_multiple(parts, groups):
        return parts
    size, rest = divmod(tracer.features(parts), groups)
    runs = [tracer.block_of(parts, i * size, (i + 1) * size) for i in range(groups)]
    if rest or runs[0] is None:
        return None
    for run in runs[1:]:
        if run is None or not tracer.unify(runs[0], run, "the groups of a convolution read other channels"):
            return None
    return parts


def _along_channels(tracer: ChannelTracer, node: fx.Node, x: Channels) -> Any:
    """Handle a convolution whose kernel moves over the channels as if they were space, such as ECA's attention.

    Its result depends on which channels are neighbours, so that none of them may be absent; their number may change.
    """
    if argument(node, "stride") not in (1, [1]) or shape_of(node)[x.dim] != shape_of(first(node))[x.dim]:
        return NotImplemented
    weight = shape_of(argument(node, "weight"))
    tracer.forbid_gating(x.parts, f"the kernel of {operation(node)} runs over its channels ({place(node)})")
    tracer.compute_with(node, *(tracer.value(argument(node, name)) for name in ("weight", "bias")))
    positions = math.prod(shape_of(node)) // shape_of(node)[x.dim]
    name = tracer.layer(node, argument(node, "weight")).name
    tracer.add_macs(name, (x.parts,), positions * math.prod(weight[1:]))
    return x.without_gates(f"the kernel of {operation(node)} runs over its channels")


def linear(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a linear layer: it mixes the last dimension, where a channel is several features after a flatten."""
    return _product(tracer, node, first(node), -1, argument(node, "weight"), 1)


def matrix_product(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle ``x @ weight``, a linear layer on the last dimension, and ``weight @ x``, which is one on that before."""
    left, right = first(node), argument(node, "other", "mat2")
    if tracer.weights(right).dims and len(shape_of(right)) == 2:
        return _product(tracer, node, left, -1, right, 0)
    if tracer.weights(left).dims and len(shape_of(left)) == 2:
        return _product(tracer, node, right, -2, left, 1)
    return NotImplemented


def _product(tracer: ChannelTracer, node: fx.Node, x: Any, dim: int, weight: Any, reads: int) -> Any:
    """Return dimension ``dim`` of ``x`` multiplied by a matrix, which is read along its dimension ``reads``."""
    bias, shape = argument(node, "bias"), shape_of(node)
    parts = tracer.parts_of_dim(x, dim) if len(shape) >= -dim else None
    if parts is None:
        return NotImplemented
    layer = tracer.layer(node, weight)
    rows, columns = tracer.tensors(weight, 1 - reads), tracer.tensors(weight, reads)
    out = tracer.write_group(layer, shape, len(shape) + dim, [*rows, *tracer.tensors(bias, 0)])
    _freeze_computed(tracer, node, layer, (parts, columns), (out.parts, rows))
    tracer.read_channels(layer.name, parts, columns)
    tracer.add_macs(layer.name, (parts, out.parts), math.prod(shape) // shape[dim])
    return out


def _freeze_computed(
    tracer: ChannelTracer,
    node: fx.Node,
    layer: Layer,
    inputs: tuple[Parts, list[AxisTensor]],
    outputs: tuple[Parts, list[AxisTensor]],
) -> None:
    """Freeze the channels on a side of a layer of which no dimension of its weight has one place for each."""
    (parts, columns), (written, rows) = inputs, outputs
    if not rows:
        tracer.freeze(written, f"its weight is computed from something else ({place(node)})")
    if not columns:
        tracer.freeze(parts, f"the weight of {layer.name} is computed with all of its inputs ({place(node)})")


def batch_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation of each channel by itself, which becomes the gate of the channels.

    It replaces the gates before it, so that a group is gated at the last BatchNorm before its channels are mixed. An
    earlier gate would not do: BatchNorm does not map 0 to 0 (a channel that is masked in front of it leaves it as a
    constant, its shift), and it divides a factor out again, so that almost no gradient would reach such a gate: 0.4% in
    MobileNet-V1 (``docs/placement.md``). With the placement ``official`` the first BatchNorm keeps the gate all the
    same, as in the paper's released code.
    """
    x = tracer.channels(first(node))
    return NotImplemented if x is None or x.dim != 1 else _by_channel(tracer, node, x)


def _by_channel(tracer: ChannelTracer, node: fx.Node, x: Channels) -> Any:
    """Record a normalisation of each channel, or each set of them, by itself: it becomes their gate."""
    arguments = [argument(node, name) for name in ("weight", "bias", "running_mean", "running_var")]
    tensors = [tensor for one in arguments for tensor in tracer.tensors(one, 0)]
    if any(tracer.value(one) is not None and not tracer.tensors(one, 0) for one in arguments):
        return NotImplemented
    layer = tracer.layer(node, next((one for one in arguments if tracer.tensors(one, 0)), None))
    tracer.add_axis(layer.name, "norm", x.parts, tensors, len(shape_of(node)) - 2)
    if not layer.gate:
        return x.without_gates(f"{layer.name} is not computed by a layer of its own")
    if not all(_is_own(tracer, layer, name, argument(node, name)) for name in ("weight", "bias")):
        tracer.add_axis(layer.name, "gate", x.parts, trailing=len(shape_of(node)) - 2)
    gated = x.gated_by([layer.gate])
    if tracer.placement == "last":
        return gated
    pairs = zip(x.parts, gated.parts, strict=True)
    return Channels(1, tuple(old if any(map(tracer.is_batch_norm, old.gates)) else new for old, new in pairs))


def _is_own(tracer: ChannelTracer, layer: Layer, name: str, given: Any) -> bool:
    """Return whether an operator gets the parameter of that name of its module, or nothing.

    Where it gets something else, such as ``1 + weight``, a gate that multiplies the parameter sets no channel to 0.
    """
    if given is None:
        return True
    own = tracer.weights(given).dims == {0: {Span(f"{layer.name}.{name}", 0)}}
    return own and isinstance(given, fx.Node) and given.op == "placeholder"


def layer_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation over the last dimensions: of each channel alone, or over the channels of the last one.

    What is normalised over the channels depends on how many there are.
    """
    x, count, over = tracer.channels(first(node)), len(shape_of(node)), len(argument(node, "normalized_shape"))
    if x is None:
        return NotImplemented
    if max(x.dim, x.outer or 0) < count - over:
        tracer.compute_with(node, *(tracer.value(argument(node, name)) for name in ("weight", "bias")))
        return x.without_gates(f"{operation(node)} divides a factor in front of it out ({place(node)})")
    return _over_channels(tracer, node, x) if over == 1 and x.dim == count - 1 else NotImplemented


def group_norm(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a normalisation over groups of channels: the channels of one come and go together, and it is their gate.

    The groups that stay compute what they did. A single group, and the groups of a functional call, of which there are
    as many at any width, are normalised over what there is.
    """
    x, groups = tracer.channels(first(node)), argument(node, "num_groups")
    if x is None or x.dim != 1:
        return NotImplemented
    if groups > 1 and tracer.keep_norm_groups(node, groups, x.parts):
        return _by_channel(tracer, node, x)
    return _over_channels(tracer, node, x) if tracer.require_multiple(x.parts, groups) else NotImplemented


def _over_channels(tracer: ChannelTracer, node: fx.Node, x: Channels) -> Channels:
    """Record a normalisation over channels: a masked channel would still count in its mean, an absent one does not."""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    name = tracer.layer(node, weight).name
    reason = f"{name} normalises over its channels"
    tracer.forbid_gating(x.parts, reason)
    tracer.add_axis(name, "norm", x.parts, [*tracer.tensors(weight, 0), *tracer.tensors(bias, 0)])
    return x.without_gates(reason)


def prelu(tracer: ChannelTracer, node: fx.Node) -> Any:
    """Handle a PReLU with a single slope or one per channel; 0 stays 0."""
    x, weight = tracer.channels(first(node)), argument(node, "weight")
    if x is None or x.dim != 1:
        return NotImplemented
    if math.prod(shape_of(weight)) > 1:
        tracer.add_axis(tracer.layer(node, weight).name, "scale", x.parts, tracer.tensors(weight, 0))
    return x


LAYERS: dict[str, Handler] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    "linear": linear,
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
    "prelu": prelu,
}
"""The handler of every operator that has weights."""
