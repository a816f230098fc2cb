"""Which attributes are passed as sizes: the 512 of ``x.view(-1, self.features)``, which an exported graph has not.

The graph has the number alone, whether the code has it from an attribute or from the tensor's shape. So the network is
run once with integers that know where they are from. What is a share of one still does, such as ``self.width // 2``;
anything else that is computed is an integer like any other.
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


class PassedSize(NamedTuple):
    """A number that is passed, and the attribute that it comes from.

    Attributes:
        module: the first path of the attribute's module.
        attribute: its name.
        number: what is passed.
        dim: the dimension that a view gets that size on; 0 for all else.
    """

    module: str
    attribute: str
    number: int
    dim: int = 0


class PassedSizes(NamedTuple):
    """The attributes that a network's code passes as sizes, as they are or a share of them.

    Attributes:
        views: those of views, and the groups of convolutions and GroupNorms.
        parts: the widths of slices and splits; None where it is not known which ones are passed.
    """

    views: Collection[PassedSize] = ()
    parts: Collection[PassedSize] | None = None


class _Attribute(int):
    """The value of an attribute, one of those in it, or a share; ``place`` is the path of its module and its name."""

    place: tuple[str, str]

    @classmethod
    def at(cls, value: int, *place: str) -> "_Attribute":
        """Return the value as one that knows where it is from."""
        marked = cls(value)
        marked.place = place[0], place[1]
        return marked

    def __floordiv__(self, other: int) -> int:
        return self._share(super().__floordiv__(other))

    def __mul__(self, other: int) -> int:
        product = super().__mul__(other)
        return product if isinstance(other, _Attribute) else self._share(product)

    __rmul__ = __mul__

    def __add__(self, other: int) -> int:
        return self._with_same(other, super().__add__(other))

    def __sub__(self, other: int) -> int:
        return self._with_same(other, super().__sub__(other))

    def _share(self, value: int) -> int:
        """Return what is computed, which goes with the attribute."""
        return value if value is NotImplemented else _Attribute.at(value, *self.place)

    def _with_same(self, other: int, value: int) -> int:
        """Return a sum or difference with ``other``, which goes with the attribute if that is a share of it too."""
        return self._share(value) if isinstance(other, _Attribute) and other.place == self.place else value


class _Passed(TorchFunctionMode):
    """Collects the attributes that are passed as sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.views: set[PassedSize] = set()
        self.parts: set[PassedSize] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it is given."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        given: tuple[Any, ...] = (*args[1:], *kwargs.values())
        if name in _CONVOLUTIONS:
            self.views |= _sizes_in([kwargs.get("groups"), *args[_GROUPS : _GROUPS + 1]])
        elif name == "group_norm":
            self.views |= _sizes_in([kwargs.get("num_groups"), *args[1:2]])
        elif name in _VIEWS:
            self.views |= {
                size._replace(dim=dim) for dim, one in _new_dims(name, args, given) for size in _sizes_in(one)
            }
        elif name in _PARTS:
            self.parts |= _sizes_in(given)
        return function(*args, **kwargs)


def _new_dims(name: str, args: tuple[Any, ...], given: tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    """Return the dimensions of a view whose sizes are given, each with its size."""
    first, sizes = (given[0] % args[0].dim(), given[1:]) if name == "unflatten" else (0, given)
    return enumerate(_single(sizes), first)


def _sizes_in(given: Any) -> set[PassedSize]:
    """Return the attributes among arguments."""
    return {PassedSize(*one.place, int(one)) for one in _single(given) if isinstance(one, _Attribute)}


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
