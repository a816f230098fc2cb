"""Which attributes are passed as sizes: the 512 of ``x.view(-1, self.features)``, which an exported graph has not.

The graph has the number alone, whether the code has it from an attribute or from the tensor's shape. So the network is
run once with integers that know where they are from. What is computed of one is an integer like any other.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pfs_core.channels.export import on_meta, run_as_it_is

_VIEWS = ("view", "reshape", "unflatten")
_PARTS = ("split", "unsafe_split", "split_with_sizes", "narrow", "__getitem__")
_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_GROUPS = 6
"""Position of the groups among the arguments of a convolution."""


Places = Collection[tuple[str, str]]
"""Attributes: the first path of the module, and the name."""


class PassedSizes(NamedTuple):
    """The attributes that a network's code passes as sizes.

    Attributes:
        views: those of views, and the groups of convolutions and GroupNorms.
        parts: the widths of slices and splits; None where it is not known which ones are passed.
    """

    views: Places = ()
    parts: Places | None = None


class _Attribute(int):
    """The value of an attribute, or one of those in it; ``place`` is the path of its module and its name."""

    place: tuple[str, str]

    @classmethod
    def at(cls, value: int, *place: str) -> "_Attribute":
        """Return the value as one that knows where it is from."""
        marked = cls(value)
        marked.place = place[0], place[1]
        return marked


class _Passed(TorchFunctionMode):
    """Collects the attributes that are passed as sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.views: set[tuple[str, str]] = set()
        self.parts: set[tuple[str, str]] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it is given."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        given: tuple[Any, ...] = (*args[1:], *kwargs.values())
        if name in _CONVOLUTIONS:
            given = (kwargs.get("groups"), *args[_GROUPS : _GROUPS + 1])
        elif name == "group_norm":
            given = (kwargs.get("num_groups"), *args[1:2])
        if name in _VIEWS or name in _CONVOLUTIONS or name == "group_norm":
            self.views |= _places(given)
        elif name in _PARTS:
            self.parts |= _places(given)
        return function(*args, **kwargs)


def _places(given: Any) -> set[tuple[str, str]]:
    """Return the attributes among arguments."""
    return {one.place for one in _single(given) if isinstance(one, _Attribute)}


def _single(given: Any) -> Iterator[Any]:
    if isinstance(given, slice):
        given = (given.start, given.stop)
    if not isinstance(given, tuple | list):
        yield given
        return
    for one in given:
        yield from _single(one)


def passed_sizes(model: nn.Module, images: Tensor) -> PassedSizes:
    """Return the attributes that are passed as sizes; it is not known where the model does not run without values."""
    marked = on_meta(model)
    for path, module in marked.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_"):
                continue
            if type(value) is int:
                vars(module)[name] = _Attribute.at(value, path, name)
            elif are_integers(value):
                numbers = [_Attribute.at(one, path, name) for one in value]
                vars(module)[name] = getattr(value, "_make", type(value))(numbers)
    passed = _Passed()
    try:
        with passed:
            run_as_it_is(marked, images.to("meta"))
    except Exception:  # its code makes tensors of its own, or takes integers for what they are alone
        return PassedSizes()
    return PassedSizes(passed.views, passed.parts)


def are_integers(value: Any) -> bool:
    """Return whether the value of an attribute is a list of integers."""
    return isinstance(value, list | tuple) and all(type(one) is int for one in value)
