"""Reading the nodes of an exported graph: operation, arguments, shapes, and where in the user's code they come from."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import fx

_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "(.+)", line (\d+), in .+\n\s*(.*)')


def operation(node: fx.Node) -> str:
    """Return the name of the ATen operator, such as ``add`` for ``aten.add.Tensor`` and ``aten.add_.Tensor``."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).split("::")[-1]
    return name.removesuffix("_") if is_in_place(node) else name


def is_in_place(node: fx.Node) -> bool:
    """Return whether an operator changes the tensor that it works on."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def is_view(node: fx.Node) -> bool:
    """Return whether the output of an operator may share memory with the tensor that it works on."""
    if operation(node) in ("getitem", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
        return True  # dropout returns its input itself in evaluation
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(value.alias_info is not None for value in schema.returns)


def argument(node: fx.Node, *names: str) -> Any:
    """Return the argument of the first of these names that the operator has, its default where it is not given."""
    schema = getattr(node.target, "_schema", None)
    for position, known in enumerate(schema.arguments if schema is not None else ()):
        if known.name in names:
            return (
                node.args[position] if position < len(node.args) else node.kwargs.get(known.name, known.default_value)
            )
    return None


def as_list(dims: Any) -> list[int]:
    """Return one dimension or several as a list."""
    return list(dims) if isinstance(dims, tuple | list) else [dims]


def has_argument(node: fx.Node, name: str) -> bool:
    """Return whether the operator, in the form that is called, has an argument of that name."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(known.name == name for known in schema.arguments)


def first(node: fx.Node) -> Any:
    """Return the tensor (or the list of tensors) that an operator works on."""
    return node.args[0] if node.args else None


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's output; () where that is not a single tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def is_tensor(node: Any) -> bool:
    """Return whether a node computes a single tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)


def is_single_value(node: Any) -> bool:
    """Return whether an argument is a number, or a tensor of a single value."""
    return isinstance(node, int | float) or (is_tensor(node) and node.meta["val"].numel() == 1)


def is_rectifier(node: fx.Node) -> bool:
    """Return whether an operator is ReLU or ReLU6, whose derivative at 0 is 0, so that a gate of 0 there stays 0."""
    return operation(node) in ("relu", "relu6") or (operation(node) == "hardtanh" and argument(node, "min_val") == 0)


def modules_around(node: fx.Node) -> list[str]:
    """Return the paths of the modules whose ``forward`` calls the operator, the innermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in reversed(stack.values())]


def is_residual(node: fx.Node, terms: list[Any]) -> bool:
    """Return whether one of several terms is computed from another one of them, as in ``x + f(x)``."""
    order = {other: position for position, other in enumerate(node.graph.nodes)}
    oldest, found = min(order[term] for term in terms), False
    for term in terms:
        seen, rest = set(), list(term.all_input_nodes)
        while rest and not found:
            one = rest.pop()
            if one in terms:
                found = True
            elif one not in seen and order[one] > oldest:
                seen.add(one)
                rest += one.all_input_nodes
    return found


def module_outputs(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return ``{node: module}`` of the nodes that a module returns, and nothing else, in the only call of it.

    Where several modules return the same, it is the innermost.
    """
    around = {node: modules_around(node) for node in graph.nodes}
    leaving: dict[str, set[fx.Node]] = {}
    for node, paths in around.items():
        for path in paths:
            if any(path not in around[user] for user in node.users):
                leaving.setdefault(path, set()).add(node)
    found: dict[fx.Node, str] = {}
    for node, paths in around.items():
        for path in paths:
            if path and leaving.get(path) == {node} and not any(path in around[user] for user in node.users):
                found.setdefault(node, path)
    return found


def place(node: fx.Node) -> str:
    """Return the line of the user's code that calls an operator, such as ``net.py, line 12: x = x.roll(1)``."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for path, line, code in reversed(frames):
        if not path.startswith(_TORCH):
            return f"{Path(path).name}, line {line}: {code.strip()}"
    return f"in {modules_around(node)[0]}" if modules_around(node) and modules_around(node)[0] else node.name


def joint(node: fx.Node) -> str:
    """Return where tensors meet: the module that the operator is called in, and the operator."""
    module = next(iter(modules_around(node)), "")
    return f"{module} ({operation(node)})" if module else operation(node)
