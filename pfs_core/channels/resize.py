"""Changing widths: a fresh network of other widths, or a trained one cut to some of its channels."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pfs_core.channels.graph import ChannelGraph, ChannelGroup

# role -> (attributes that hold the width, [(tensor, dimension that the width spans)])
_SHAPES: dict[tuple[type, str], tuple[tuple[str, ...], tuple[tuple[str, int], ...]]] = {
    (nn.Conv2d, "writes"): (("out_channels",), (("weight", 0), ("bias", 0))),
    (nn.Conv2d, "reads"): (("in_channels",), (("weight", 1),)),
    (nn.Conv2d, "depthwise"): (("in_channels", "out_channels", "groups"), (("weight", 0), ("bias", 0))),
    (nn.Linear, "writes"): (("out_features",), (("weight", 0), ("bias", 0))),
    (nn.Linear, "reads"): (("in_features",), (("weight", 1),)),
    **dict.fromkeys(
        [(nn.BatchNorm1d, "norm"), (nn.BatchNorm2d, "norm")],
        (("num_features",), (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0))),
    ),
}


def resize(model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> nn.Module:
    """A freshly initialised copy of ``model`` at other widths; module names and order stay.

    Every module's ``reset_parameters`` is called in order, then the model's own ``init_weights()`` if it has one,
    with torch's global random generator.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        widths: channels a group, for every group of the graph.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.
    """
    graph.check(widths)

    def fresh(tensor: Tensor, dim: int, group: ChannelGroup, repeat: int) -> Tensor:
        shape = list(tensor.shape)
        shape[dim] = widths[group.name] * repeat
        return tensor.new_empty(shape)

    out = _reshape(model, graph, widths, fresh)
    for module in out.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    if callable(init := getattr(out, "init_weights", None)):
        init()
    return out


def slice_weights(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with only the ``kept`` channels, their weights and BN statistics included.

    Args:
        model: the network that ``graph`` was traced from.
        graph: its channel graph.
        kept: sorted channel indices (int64) a group; a group that is not named keeps all.

    Raises:
        UserError: as :meth:`ChannelGraph.check`.
    """
    widths = graph.widths() | {name: len(index) for name, index in kept.items()}
    graph.check(widths)

    def sliced(tensor: Tensor, dim: int, group: ChannelGroup, repeat: int) -> Tensor:
        if group.name not in kept:
            return tensor
        index = kept[group.name].to(tensor.device)
        features = (index[:, None] * repeat + torch.arange(repeat, device=tensor.device)).flatten()
        return tensor.index_select(dim, features)

    return _reshape(model, graph, widths, sliced)


def _reshape(
    model: nn.Module,
    graph: ChannelGraph,
    widths: Mapping[str, int],
    change: Callable[[Tensor, int, ChannelGroup, int], Tensor],
) -> nn.Module:
    out = copy.deepcopy(model)
    for group in graph.groups:
        for member in group.members:
            module = out.get_submodule(member.module)
            attributes, tensors = _SHAPES[type(module), member.role]
            for attribute in attributes:
                setattr(module, attribute, widths[group.name] * member.repeat)
            for name, dim in tensors:
                old = getattr(module, name)
                if old is None:
                    continue
                new = change(old.detach(), dim, group, member.repeat)
                setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    return out
