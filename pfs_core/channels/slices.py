"""Reading the nodes of a traced graph: shapes and arguments."""

from typing import Any

from torch import fx


def sizes_of(node: Any) -> Any:
    """What shape propagation found: metadata of the tensor that a node gives, or of several; None if there is none."""
    return node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's output; () if that is not a single tensor."""
    return tuple(getattr(sizes_of(node), "shape", ()))


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def first(node: fx.Node) -> Any:
    """The tensor that an operation works on."""
    return argument(node, 0, "input")
