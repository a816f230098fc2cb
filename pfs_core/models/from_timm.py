"""The classification networks of timm, untrained, by ``timm:NAME``; timm is an extra, ``pip install pfs[timm]``."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pfs_core.errors import UserError, did_you_mean

PREFIX = "timm:"
_WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
"""Arguments of ``timm.create_model`` that load trained weights."""


def from_timm(name: str) -> Callable[..., nn.Module]:
    """Return a factory ``f(num_classes, in_channels, **kwargs)`` of a network of timm.

    The factory has the ``input_shape`` and ``num_classes`` of timm's default weights as attributes.

    Args:
        name: the name in timm, without the prefix.

    Raises:
        UserError: timm is not installed, or has no network of that name.
    """
    try:
        import timm
    except ImportError:
        raise UserError(f"model {PREFIX}{name} needs timm; install it with: pip install 'pfs[timm]'") from None
    if name not in (known := timm.list_models()):
        raise UserError(f"unknown model '{PREFIX}{name}'{did_you_mean(name, known, PREFIX)}; see timm.list_models()")

    def factory(num_classes: int, in_channels: int, **kwargs: Any) -> nn.Module:
        for argument in _WEIGHTS:
            if argument in kwargs:
                raise UserError(f"model.{argument} cannot be set: networks are trained from scratch")
        network: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **kwargs)
        return network

    published = timm.get_pretrained_cfg(name)
    factory.input_shape = tuple(published.input_size) if published else (3, 224, 224)  # type: ignore[attr-defined]
    factory.num_classes = published.num_classes if published else 1000  # type: ignore[attr-defined]
    return factory
