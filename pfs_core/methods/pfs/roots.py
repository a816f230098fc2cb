"""Roots of channels that a gate has set to 0.

The derivative of a root at 0 is infinite. A standard deviation or an L2 norm over the pixels of a channel, written with
``sqrt``, therefore gives a channel of zeros the gradient 0 * inf, which is not a number, and from there it spreads to
all gates before it. A proof says nothing of that, since masked and removed channels compute the same; nor would
freezing such channels be right, which can be removed as any others. So where gates of 0 spoil the gradients, roots take
the derivative 0 at 0, as ``torch.linalg.vector_norm`` and ``torch.std`` do. A gate that only a root reads then stays
closed, as it does behind a ReLU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pfs_core.channels import ChannelGraph
from pfs_core.methods.pfs.trial import gate_gradients


class RootsFlatAtZero(TorchFunctionMode):
    """While it lasts, ``sqrt`` and powers below 1 have the derivative 0 at 0.

    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> with RootsFlatAtZero():
    ...     y = x.sqrt()
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 2.0], [0.0, 0.25])
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute ``func``, by another one where it is a root."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in ("sqrt", "sqrt_"):
            return _root(func, args, kwargs)
        if name in ("pow", "pow_", "__pow__", "__ipow__"):
            exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
            if isinstance(exponent, int | float) and 0 < exponent < 1:
                return _root(func, args, kwargs)
        return func(*args, **kwargs)


def _root(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute a root of its first argument, without a gradient where that is 0."""
    x = args[0] if args else kwargs.pop("input")
    zero = x == 0
    # A root in place is that of a new tensor, which then takes the place of the old values.
    root = func(torch.where(zero, 1.0, x), *args[1:], **kwargs)
    root = torch.where(zero, 0.0, root)
    in_place = func.__name__.endswith("_") and func.__name__ != "__pow__"
    return x.copy_(root) if in_place else root


def spoilt_at_zero(model: nn.Module, graph: ChannelGraph, layout: torch.memory_format, precision: str) -> bool:
    """Return whether gates of 0 make gradients infinite, or not a number.

    Args:
        model: the network; neither it nor torch's random state is changed.
        graph: its channel graph.
        layout: the memory format of the network.
        precision: ``bf16`` or ``fp32``.

    Raises:
        UserError: as :func:`gate_gradients`.
    """
    gradients = gate_gradients(model, graph, layout, precision, closed=True)
    return not all(bool(gradient.isfinite().all()) for gradient in gradients.values())
