"""The classification networks of torchvision, untrained, by ``torchvision:NAME``."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pfs_core.errors import UserError, did_you_mean

PREFIX = "torchvision:"
AUXILIARY = ("googlenet", "inception_v3")
"""Networks that, by default, have auxiliary outputs and warn that their initialisation will change."""
_WEIGHTS = ("weights", "pretrained")
"""Arguments of torchvision's builders that load trained weights."""


def from_torchvision(name: str) -> Callable[..., nn.Module]:
    """Return a factory ``f(num_classes, in_channels, **kwargs)`` of a network of torchvision.

    The factory has the published ``input_shape`` and ``num_classes`` as attributes, and raises UserError unless
    ``in_channels`` is 3.

    Args:
        name: the name in torchvision, without the prefix.

    Raises:
        UserError: torchvision has no classification network of that name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known, PREFIX)
        raise UserError(f"unknown model '{PREFIX}{name}'{hint}; see torchvision.models.list_models()")
    builder = models.get_model_builder(name)
    preset = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}

    def factory(num_classes: int, in_channels: int, **kwargs: Any) -> nn.Module:
        if in_channels != 3:
            raise UserError(f"model {PREFIX}{name}: torchvision's networks take 3 channels (got {in_channels})")
        for argument in _WEIGHTS:
            if argument in kwargs:
                raise UserError(f"model.{argument} cannot be set: networks are trained from scratch")
        result: nn.Module = builder(weights=None, num_classes=num_classes, **{**preset, **kwargs})
        return result

    side = 299 if name == "inception_v3" else 224
    factory.input_shape = (3, side, side)  # type: ignore[attr-defined]
    factory.num_classes = 1000  # type: ignore[attr-defined]
    return factory
