"""Which attributes a module passes as sizes: the 512 of ``x.view(-1, self.features)``, which an exported graph has not.

The graph has the number alone, whether the code has it from an attribute or from the tensor's shape. So the network is
run once with integers that know where they are from. What is computed of one is an integer like any other.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pfs_core.channels.export import on_meta, run_as_it_is

_VIEWS = ("view", "reshape", "unflatten")
_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_GROUPS = 6
"""Position of the groups among the arguments of a convolution."""


class _Attribute(int):
    """The value of an attribute; ``place`` is the path of its module and its name."""

    place: tuple[str, str]


class _Passed(TorchFunctionMode):
    """Collects the attributes that are passed as sizes of views and as groups of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[tuple[str, str]] = set()
        """Module and name of each attribute that was passed."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it is given."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        given: list[Any] = []
        if name in _VIEWS:
            for one in (*args[1:], *kwargs.values()):
                given += one if isinstance(one, tuple | list) else [one]
        elif name in _CONVOLUTIONS:
            given = [kwargs.get("groups"), *args[_GROUPS : _GROUPS + 1]]
        self.places |= {one.place for one in given if isinstance(one, _Attribute)}
        return function(*args, **kwargs)


def passed_sizes(model: nn.Module, images: Tensor) -> set[tuple[str, str]]:
    """Return modules, by their first path, and their attributes that are passed as sizes.

    There are none where the model does not run without values.
    """
    marked = on_meta(model)
    for path, module in marked.named_modules():
        for name, value in vars(module).items():
            if type(value) is int and not name.startswith("_"):
                vars(module)[name] = _Attribute(value)
                vars(module)[name].place = path, name
    passed = _Passed()
    try:
        with passed:
            run_as_it_is(marked, images.to("meta"))
    except Exception:  # its code makes tensors of its own, or takes integers for what they are alone
        return set()
    return passed.places
