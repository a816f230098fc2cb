"""Networks by name: those of the zoo, of torchvision and of timm, and the user's own."""

import contextlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError, did_you_mean, one_line
from pfs_core.models.from_module import by_module, from_module
from pfs_core.models.from_timm import from_timm
from pfs_core.models.from_torchvision import from_torchvision
from pfs_core.models.spec_file import model_fields
from pfs_core.models.zoo import MODELS, Entry
from pfs_core.runtime.device import memory_size
from pfs_core.storage.local import is_there

__all__ = [
    "MODELS",
    "Entry",
    "build_model",
    "check_model_name",
    "check_model_size",
    "factory_of",
    "is_users_own",
    "model_fields",
    "network_without_values",
    "published_fields",
]


LIBRARIES: dict[str, Callable[[str], Callable[..., nn.Module]]] = {"torchvision": from_torchvision, "timm": from_timm}
"""``{prefix of a network's name: what returns its factory}``."""


def factory_of(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds the network called ``name``.

    Args:
        name: a name of the zoo, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``.

    Raises:
        UserError: there is no such network.
    """
    if name in MODELS:
        return MODELS[name].load()
    source, colon, rest = name.partition(":")
    if colon and source in LIBRARIES:
        return LIBRARIES[source](rest)
    if colon:
        return from_module(name)
    if name.endswith(".py"):
        raise UserError(f"model {name!r} names a file; {by_module(name, 'FUNCTION')}")
    if is_there(f"{name}.py"):
        raise UserError(f"model {name!r} is a module of yours; name the function in it that builds it: {name}:FUNCTION")
    known = ", ".join([*MODELS, *(f"{library}:NAME" for library in LIBRARIES), "package.module:factory"])
    raise UserError(f"unknown model {name!r}{did_you_mean(name, MODELS)}; known: {known}")


def is_users_own(name: str) -> bool:
    """Return whether a network is made by code of the user's, ``package.module:factory``."""
    return ":" in name and name.partition(":")[0] not in LIBRARIES


def check_model_name(name: str) -> None:
    """Raise UserError unless there is a network called ``name``; nothing is built."""
    factory_of(name)


def published_fields(name: str) -> dict[str, Any]:
    """Return the ``input_shape`` and ``num_classes`` that a network was published for, as far as they are known.

    A user's own factory can declare them by attributes of these names.

    >>> published_fields("vgg16")
    {'input_shape': (3, 32, 32), 'num_classes': 10}
    """
    source = MODELS.get(name) or factory_of(name)
    return {field: getattr(source, field) for field in ("input_shape", "num_classes") if hasattr(source, field)}


def network_without_values(spec: ModelSpec) -> nn.Module:
    """Return a network as :func:`build_model` does; one of the zoo has no values, and takes no memory for them.

    Raises:
        UserError: as ``build_model``.
    """
    with torch.device("meta") if spec.name in MODELS else contextlib.nullcontext():
        return build_model(spec)


def check_model_size(spec: ModelSpec) -> None:
    """Build a network, one of the zoo without its values, and check that its weights fit in memory.

    Raises:
        UserError: they do not, or the network cannot be built.
    """
    values = sum(p.numel() for p in network_without_values(spec).parameters())
    needed, there = 4 * values, memory_size(torch.device("cpu"))
    if needed > there:
        smaller = ", ".join(f"model.{name}" for name in spec.kwargs)
        raise UserError(
            f"model {spec.name}: its {values:,} weights take {needed / 2**30:,.1f} GiB of memory, and there are "
            f"{there / 2**30:.1f}; make it smaller{f' ({smaller})' if smaller else ''}"
        )


def build_model(model: ModelSpec | str, **kwargs: Any) -> nn.Module:
    """Return a freshly initialised network at its published (unexpanded) widths.

    An image classifier of Hugging Face's transformers, from a factory of the user's, returns its logits alone.

    Args:
        model: a spec, or a name, which stands for the network with the images and classes that it was published for.
        kwargs: further fields of :class:`ModelSpec` where ``model`` is a name, e.g. ``num_classes=100``.

    Raises:
        UserError: there is no such network, or it cannot be built with these keyword arguments.

    >>> build_model("resnet20", num_classes=100).fc
    Linear(in_features=64, out_features=100, bias=True)
    """
    if isinstance(model, str):
        model = ModelSpec.parse({**published_fields(model), "name": model, **kwargs}, "model")
    factory = factory_of(model.name)
    if isinstance(factory, nn.Module):
        raise UserError(f"model {model.name}: it is a network; name the class or the function that makes one")
    if inspect.iscoroutinefunction(factory):
        raise UserError(f"model {model.name}: it is an async function; name one that is written with def alone")
    arguments = _arguments(model, factory)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # what has no weights is refused
            network = factory(**arguments)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:
        raise UserError(f"model {model.name}: {one_line(e)}") from e
    network = getattr(network, "_orig_mod", network)  # what torch.compile was given
    if not isinstance(network, nn.Module):
        raise UserError(f"model {model.name}: expected an nn.Module, got an object of type {type(network).__name__}")
    if any(base.__module__.startswith("transformers.") for base in type(network).__mro__):
        network.register_forward_hook(_logits)
    return network


def _logits(network: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Return the logits alone of what a classifier of Hugging Face's transformers returns."""
    return getattr(outputs, "logits", outputs)


def _arguments(spec: ModelSpec, factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments for a factory: the spec's own, and the numbers of classes and channels if it takes them."""
    ours = {"num_classes": spec.num_classes, "in_channels": spec.input_shape[0]}
    for name in ours:
        if name in spec.kwargs:
            raise UserError(f"model.{name} cannot be set: it follows from the dataset, or from the spec's own fields")
    try:
        signature = inspect.signature(factory)
    except ValueError as e:
        raise UserError(f"model {spec.name}: {e}") from None
    parameters = signature.parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments = {name: value for name, value in ours.items() if any_name or name in parameters} | spec.kwargs
    try:
        signature.bind(**arguments)
    except TypeError as e:
        known = ", ".join(name for name in parameters if name not in ours) or "none"
        raise UserError(f"model {spec.name}: {e}; known: {known}") from None
    return arguments
