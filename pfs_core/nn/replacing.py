"""Copies of a network in which some layers are computed in another way."""

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import nn

Conv = TypeVar("Conv", bound=nn.Conv2d)


def with_replaced(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return a copy of ``model`` with some of its modules replaced; parameters and buffers are shared with it.

    A replacement takes over every place where the module was referenced: a module that is registered under two names
    stays one module, and a plain list or an attribute of the model's own refers to the replacement as well. The names
    in the ``state_dict`` stay as they are.

    Modules with hooks, or with attributes that someone has added, are left alone. A hook may depend on the class of the
    module or set its weight, and the new module would be missing the attributes.

    Args:
        model: a network; it is not changed.
        replacement: gives a new module that shares the parameters and buffers of the one it is called with, or None
            where that one stays.

    >>> relu = nn.ReLU()
    >>> model = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    >>> out = with_replaced(model, lambda module: nn.ReLU6() if module is relu else None)
    >>> [type(module).__name__ for module in out]
    ['Linear', 'ReLU6', 'Linear', 'ReLU6']
    >>> out[1] is out[3], out[0].weight is model[0].weight
    (True, True)
    """
    # deepcopy takes an object that its memo knows in place of a copy. That shares the tensors, and puts a replacement
    # wherever the original was referenced, which assigning submodules by name would not do.
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            continue
        new = replacement(module)
        if new is not None and vars(module).keys() <= vars(new).keys():
            memo[id(module)] = new
    return copy.deepcopy(model, memo)


def conv_with_weights_of(conv: nn.Conv2d, kind: type[Conv]) -> Conv:
    """Return a convolution of class ``kind`` with the configuration and the very parameters of ``conv``."""
    new = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # torch annotates the attribute as a tuple of any length
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device="meta",  # allocates no weights and draws no random numbers: those of conv take their place
    )
    new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)
