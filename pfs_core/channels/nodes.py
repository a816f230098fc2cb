"""Reading the nodes of a traced graph: shapes and arguments."""

from typing import Any

from torch import fx


def tensor_meta(node: Any) -> Any:
    """Return what shape propagation recorded of the tensors that a node computes; None if it computes no tensor."""
    return node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's output; () where that is not a single tensor."""
    return tuple(getattr(tensor_meta(node), "shape", ()))


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, whether it was passed by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def first(node: fx.Node) -> Any:
    """Return the tensor that an operation works on."""
    return argument(node, 0, "input")
