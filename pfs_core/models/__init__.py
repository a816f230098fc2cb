"""The zoo: networks by name, built from a :class:`~pfs_core.spec.ModelSpec`."""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from pfs_core.errors import UserError
from pfs_core.models.resnet import resnet20, resnet56
from pfs_core.models.vgg import vgg16
from pfs_core.spec import ModelSpec

MODELS: dict[str, Callable[..., nn.Module]] = {"resnet20": resnet20, "resnet56": resnet56, "vgg16": vgg16}
"""Factories ``f(num_classes, in_channels, **kwargs) -> nn.Module``; a docstring's first line describes the network."""


def check_model_name(name: str) -> None:
    """Raise UserError unless ``name`` is in the zoo."""
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"unknown model {name!r}{hint}; known: {', '.join(sorted(MODELS))}")


def build_model(model: ModelSpec | str, **kwargs: Any) -> nn.Module:
    """A freshly initialised network at its published (unexpanded) widths.

    Args:
        model: a spec, or a zoo name.
        kwargs: fields of :class:`ModelSpec` beside a name, e.g. ``num_classes=100``.

    Raises:
        UserError: the name or one of the network's own keyword arguments is not known.
    """
    spec = ModelSpec.parse({"name": model, **kwargs}, "model") if isinstance(model, str) else model
    check_model_name(spec.name)
    try:
        return MODELS[spec.name](num_classes=spec.num_classes, in_channels=spec.input_shape[0], **spec.kwargs)
    except TypeError as e:
        raise UserError(f"model {spec.name}: {str(e).split('() ')[-1]}") from None
