"""Changing widths: a fresh network of other widths, or a trained one cut to some of its channels."""

import copy
import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pfs_core.channels.branches import leave_out
from pfs_core.channels.elements import Axis, AxisTensor, ChannelGroup, Role, features
from pfs_core.channels.export import named
from pfs_core.channels.graph import ChannelGraph
from pfs_core.channels.twins import part_twins

ATTRIBUTES: dict[Role, tuple[str, ...]] = {
    "writes": ("out_channels", "out_features"),
    "reads": ("in_channels", "in_features"),
    "depthwise": ("in_channels", "groups", "channels"),
    "norm": ("num_features", "num_channels", "normalized_shape"),
    "scale": ("num_parameters",),
    "gate": (),
}
"""The attributes in which layers note their widths, by the role of the axis."""


def resize(model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> nn.Module:
    """Return a freshly initialised copy of ``model`` at other widths, with the same module names in the same order.

    Every module's ``reset_parameters`` is called in order, then the model's own ``init_weights()`` if it has one that
    needs no arguments, with torch's global random generator. Weights that none of them draws are the old ones; where
    more are needed, :func:`~pfs_core.channels.twins.part_twins` makes others of them.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        widths: the number of channels of every group of the graph; 0 in a branch that is left out.

    Raises:
        UserError: as :meth:`ChannelGraph.check`, or the model's initialisation fails.

    >>> from pfs_core.channels import trace
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))
    >>> graph = trace(model, (3, 8, 8))
    >>> resize(model, graph, {**graph.widths(), "0": 5})[3]
    Conv2d(5, 10, kernel_size=(3, 3), stride=(1, 1))
    """
    graph.check(widths)
    built = graph.narrowest(widths)
    out = with_widths(model, graph, built)
    for module in out.modules():
        _initialise(module, "reset_parameters")
    _initialise(out, "init_weights")
    part_twins(out, graph)
    leave_out(out, graph.left_out(widths))
    return out


def _initialise(module: nn.Module, method: str) -> None:
    """Call a method of a module that draws its weights, if there is one that needs no arguments."""
    function = getattr(module, method, None)
    if not callable(function):
        return
    parameters = inspect.signature(function).parameters.values()
    if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        with named(f"{type(module).__name__}.{method}() fails"):
            function()


def with_widths(model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> nn.Module:
    """Return a copy of ``model`` at other widths, with its old values as often as they are needed.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.
    """
    graph.check(widths)
    built = graph.narrowest(widths)

    def cyclic(tensor: Tensor, axis: Axis, on: AxisTensor) -> Tensor:
        width = features(axis.segments, built) // on.shares
        return tensor.index_select(on.dim, torch.arange(width, device=tensor.device) % tensor.shape[on.dim])

    out = _reshape(model, graph, built, cyclic)
    leave_out(out, graph.left_out(widths))
    return out


def slice_weights(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` with only the ``kept`` channels, their weights and BatchNorm statistics included.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        kept: the gates to keep per group, ``{group: int64 [n]}`` in rising order. They are indices of channels, or of
            places in the groups of a grouped convolution where the channel group has ``blocks``, or of the groups of a
            GroupNorm where it has a ``unit``. A group that is not named keeps all, and one that keeps none belongs to
            a branch that is left out.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.

    >>> from pfs_core.channels import trace
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))
    >>> small = slice_weights(model, trace(model, (3, 8, 8)), {"0": torch.tensor([1, 4, 6])})
    >>> torch.equal(small[3].weight, model[3].weight[:, [1, 4, 6]])
    True
    """
    per_gate = {group.name: group.per_gate for group in graph.groups}
    before = graph.widths()
    asked = before | {name: len(index) * per_gate.get(name, 1) for name, index in kept.items()}
    graph.check(asked)
    gates = {g.name: kept.get(g.name, torch.arange(g.gate_count)) for g in graph.groups}
    # Of a branch that is left out one gate stays until it is.
    gates = {name: index if len(index) else torch.arange(1) for name, index in gates.items()}
    channels = {group.name: _channels(gates[group.name], group) for group in graph.groups}
    widths = {name: len(index) for name, index in channels.items()}

    def sliced(tensor: Tensor, axis: Axis, on: AxisTensor) -> Tensor:
        index = []
        for part, place in axis.slices(before):
            # All blocks of a group keep the channels at the same places, so those of the first one stand for any.
            kept_in_block = channels[part.group][: len(channels[part.group]) // part.blocks]
            index.append(place.start + (kept_in_block[:, None] * part.repeat + torch.arange(part.repeat)).flatten())
        every = torch.cat(index)
        # So does every group of a convolution.
        return tensor.index_select(on.dim, every[: len(every) // on.shares].to(tensor.device))

    out = _reshape(model, graph, widths, sliced)
    leave_out(out, graph.left_out(asked))
    return out


def _channels(kept: Tensor, group: ChannelGroup) -> Tensor:
    """Return the channels of the kept gates: each gate is that of the channels at its place in every block."""
    return torch.arange(group.width).view(group.blocks, -1, group.unit)[:, kept.cpu()].flatten()


def _reshape(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Mapping[str, int],
    change: Callable[[Tensor, Axis, AxisTensor], Tensor],
) -> nn.Module:
    """Return a copy of ``model`` at ``widths``.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        widths: the number of channels of every group.
        change: given a tensor, the axis on a dimension of it and which dimension that is, returns it at its new size.
    """
    out = copy.deepcopy(model)
    before = graph.widths()
    modules = dict(out.named_modules())
    changed: set[tuple[str, int]] = set()
    for axis in graph.axes:
        old, new = features(axis.segments, before), features(axis.segments, widths)
        if old == new:
            continue
        # A parameter that belongs to no layer is named by its own path; its module may note its width all the same.
        module = modules.get(axis.module, modules.get(axis.module.rpartition(".")[0]))
        if module is not None:
            _note_width(module, axis.role, old, new)
        for on in axis.tensors:
            if (on.name, on.dim) in changed:  # on the axes of two readers
                continue
            changed.add((on.name, on.dim))
            path, _, name = on.name.rpartition(".")
            owner = modules[path]
            tensor = getattr(owner, name)
            new_tensor = change(tensor.detach(), axis, on)
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(owner, name, nn.Parameter(new_tensor, tensor.requires_grad) if is_parameter else new_tensor)
    for sizes in graph.sizes:
        noted = getattr(modules[sizes.module], sizes.attribute)
        olds = noted if isinstance(noted, list | tuple) else [noted]
        numbers = [
            features(row, widths) // sizes.unit if row else old for row, old in zip(sizes.rows, olds, strict=True)
        ]
        if olds is not noted:
            setattr(modules[sizes.module], sizes.attribute, numbers[0])
        elif [*noted] != numbers:
            setattr(modules[sizes.module], sizes.attribute, getattr(noted, "_make", type(noted))(numbers))
    return out


def _note_width(module: nn.Module, role: Role, old: int, new: int) -> None:
    """Set the attributes in which a layer notes its width on one side."""
    for attribute in ATTRIBUTES[role]:
        if getattr(module, attribute, None) == old:
            setattr(module, attribute, new)
        elif getattr(module, attribute, None) == (old,):
            setattr(module, attribute, (new,))
