"""Changing widths: a fresh network of other widths, or a trained one cut to some of its channels."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pfs_core.channels.graph import Axis, ChannelGraph, features

_WidthUse = tuple[tuple[str, ...], tuple[tuple[str, int], ...]]
"""Attributes that hold a width, and (tensor, dimension that the width spans) of every tensor that depends on it."""
_CONVOLUTION: dict[str, _WidthUse] = {
    "writes": (("out_channels",), (("weight", 0), ("bias", 0))),
    "reads": (("in_channels",), (("weight", 1),)),
    "depthwise": (("in_channels", "groups"), ()),
}
_TRANSPOSED: dict[str, _WidthUse] = {
    "writes": (("out_channels",), (("weight", 1), ("bias", 0))),
    "reads": (("in_channels",), (("weight", 0),)),
}
_LINEAR: dict[str, _WidthUse] = {
    "writes": (("out_features",), (("weight", 0), ("bias", 0))),
    "reads": (("in_features",), (("weight", 1),)),
}
_AFFINE = (("weight", 0), ("bias", 0))
_STATISTICS: dict[str, _WidthUse] = {"norm": (("num_features",), (*_AFFINE, ("running_mean", 0), ("running_var", 0)))}
SHAPES: dict[type, dict[str, _WidthUse]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONVOLUTION),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _TRANSPOSED),
    nn.Linear: _LINEAR,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _STATISTICS),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _STATISTICS),
    nn.LayerNorm: {"norm": (("normalized_shape",), _AFFINE)},
    nn.GroupNorm: {"norm": (("num_channels",), _AFFINE)},
    nn.PReLU: {"scale": (("num_parameters",), (("weight", 0),))},
}
"""What depends on a width in each layer, by the role of the axis."""


def resize(model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> nn.Module:
    """Return a freshly initialised copy of ``model`` at other widths, with the same module names in the same order.

    Every module's ``reset_parameters`` is called in order, then the model's own ``init_weights()`` if it has one,
    with torch's global random generator.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        widths: the number of channels of every group of the graph.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.

    >>> from pfs_core.channels import trace
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))
    >>> graph = trace(model, (3, 8, 8))
    >>> resize(model, graph, {**graph.widths(), "0": 5})[3]
    Conv2d(5, 10, kernel_size=(3, 3), stride=(1, 1))
    """
    graph.check(widths)

    def fresh(tensor: Tensor, dim: int, axis: Axis, shares: int) -> Tensor:
        shape = list(tensor.shape)
        shape[dim] = features(axis.segments, widths) // shares
        return tensor.new_empty(shape)

    out = _reshape(model, graph, widths, fresh)
    for module in out.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    if callable(init := getattr(out, "init_weights", None)):
        init()
    return out


def slice_weights(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` with only the ``kept`` channels, their weights and BatchNorm statistics included.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        kept: the gates to keep per group, ``{group: int64 [n]}`` in rising order. They are indices of channels, or of
            places in the groups of a grouped convolution where the channel group has ``blocks``. A group that is not
            named keeps all.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.

    >>> from pfs_core.channels import trace
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))
    >>> small = slice_weights(model, trace(model, (3, 8, 8)), {"0": torch.tensor([1, 4, 6])})
    >>> torch.equal(small[3].weight, model[3].weight[:, [1, 4, 6]])
    True
    """
    blocks = {group.name: group.blocks for group in graph.groups}
    before = graph.widths()
    graph.check(before | {name: len(index) * blocks.get(name, 1) for name, index in kept.items()})
    gates = {g.name: kept.get(g.name, torch.arange(g.gate_count)) for g in graph.groups}
    channels = {name: _channels(index, blocks[name], before[name]) for name, index in gates.items()}
    widths = {name: len(index) for name, index in channels.items()}

    def sliced(tensor: Tensor, dim: int, axis: Axis, shares: int) -> Tensor:
        index, start = [], 0
        for name, repeat in axis.segments:
            index.append(start + (channels[name][:, None] * repeat + torch.arange(repeat)).flatten())
            start += before[name] * repeat
        every = torch.cat(index)
        # Every group of a convolution keeps the channels at the same places, so those of the first one stand for all.
        return tensor.index_select(dim, every[: len(every) // shares].to(tensor.device))

    return _reshape(model, graph, widths, sliced)


def _channels(kept: Tensor, blocks: int, width: int) -> Tensor:
    """Return the channels of the kept gates: each gate is that of the channels at its place in every block."""
    return (torch.arange(0, width, width // blocks)[:, None] + kept.cpu()).flatten()


def _reshape(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Mapping[str, int],
    change: Callable[[Tensor, int, Axis, int], Tensor],
) -> nn.Module:
    """Return a copy of ``model`` at ``widths``.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        widths: the number of channels of every group.
        change: given a tensor, a dimension of it, the axis on that dimension and the number of a convolution's groups
            that share its channels, returns the tensor at its new size.
    """
    out = copy.deepcopy(model)
    for axis in graph.axes:
        module = out.get_submodule(axis.module)
        attributes, tensors = SHAPES[type(module)][axis.role]
        width = features(axis.segments, widths)
        for attribute in attributes:
            setattr(module, attribute, (width,) if attribute == "normalized_shape" else width)
        for name, dim in tensors:
            old = getattr(module, name)
            if old is None:
                continue
            # Dimension 1 of a grouped convolution's weight, [C', C / groups, ...], spans only one of its groups.
            shares = getattr(module, "groups", 1) if dim == 1 else 1
            if old.shape[dim] == width // shares:
                continue
            new = change(old.detach(), dim, axis, shares)
            setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    return out
