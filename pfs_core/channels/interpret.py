"""The pass over an exported network: each node is given to the handler of its operator, in forward order.

This is an interpreter on abstract values: in place of tensors it computes which channels they consist of.
"""

from dataclasses import replace
from typing import Any, TypeGuard

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor, Span, Value, Weights
from pfs_core.channels.export import Exported
from pfs_core.channels.handlers.table import HANDLERS
from pfs_core.channels.handlers.weights import combine_weights
from pfs_core.channels.nodes import argument, first, is_in_place, is_view, module_outputs, operation, place, shape_of
from pfs_core.channels.tracer import ChannelTracer


def interpret(tracer: ChannelTracer, exported: Exported, counts_macs: bool = True) -> None:
    """Visit every node of an exported network, and record in ``tracer`` what the operators do to channels.

    Args:
        tracer: its values, groups, axes and terms are added to.
        exported: the network, exported with :data:`~pfs_core.channels.tracer.BATCH` images.
        counts_macs: whether the MACs of the layers count (their parameters always do, once).
    """
    tracer.counts_macs = counts_macs
    inputs = {node: exported.tensors.get(str(node.target)) for node in exported.graph.nodes if node.op == "placeholder"}
    for node, tensor in inputs.items():
        tracer.values[node] = _placeholder(tracer, node, tensor, exported)
    for output in _Pass(tracer).visit(exported.graph):
        if (x := tracer.channels(output)) is not None:
            tracer.freeze(x.parts, "the network's output")


def _placeholder(tracer: ChannelTracer, node: fx.Node, tensor: str | None, exported: Exported) -> Value:
    shape = shape_of(node)
    if str(node.target) in exported.images:
        return tracer.add_input(node, shape[1]) if len(shape) >= 2 else None
    if tensor is None:
        number = exported.numbers.get(str(node.target))
        return FixedTensor(node.name, f"comes from the constant {node.name}", constant=True, number=number)
    return Weights({dim: frozenset([Span(tensor, dim)]) for dim in range(len(shape))})


_COPIES = ("lift_fresh", "lift_fresh_copy", "detach", "alias", "clone", "to", "_to_copy", "view", "reshape", "expand")
"""Operators whose output has the values that go in."""


class _Pass:
    """One pass: which tensors share memory (``{node: node that owns the memory}``), and which ones modules return."""

    def __init__(self, tracer: ChannelTracer) -> None:
        self.tracer = tracer
        self._memory: dict[fx.Node, fx.Node] = {}
        self._outputs: dict[fx.Node, str] = {}

    def visit(self, graph: fx.Graph) -> list[fx.Node]:
        """Visit the nodes of a graph whose placeholders have values, and return the nodes that it outputs."""
        self._outputs |= module_outputs(graph)
        for node in graph.nodes:
            if node.op == "output":
                return list(node.all_input_nodes)
            if node.op == "call_function" and not operation(node).startswith("_assert"):
                self.tracer.values[node] = self._value_of(node)
        return []

    def _value_of(self, node: fx.Node) -> Value:
        """Return what a node computes, and record what it does to the channels that go into it."""
        tracer = self.tracer
        if (inside := _subgraph(node)) is not None:
            return self._enter(*inside)
        if is_in_place(node) or is_view(node):
            self._share(node, first(node))
        if operation(node) == "getitem":
            value = tracer.value(first(node))
            return value[node.args[1]] if isinstance(value, tuple) else value  # type: ignore[index]
        known = [value for value in map(tracer.value, node.all_input_nodes) if value is not None]
        flat = [one for value in known for one in (value if isinstance(value, tuple) else (value,))]
        if not any(isinstance(value, Channels) or _depends_on_images(value) for value in flat):
            return self._without_images(node, flat)
        value = self._handled(node)
        if value is NotImplemented:
            value = self._not_supported(node, flat)
        elif isinstance(value, Channels) and node in self._outputs:
            value = tracer.offer_gate(node, value, self._outputs[node])
        if is_in_place(node):
            self._overwrite(node, value)
        return value

    def _handled(self, node: fx.Node) -> Any:
        """Return what the handler of the operator makes of a node; NotImplemented where it does not understand it."""
        handler = HANDLERS.get(operation(node))
        try:
            value = handler(self.tracer, node) if handler else NotImplemented
        except (TypeError, IndexError, AttributeError):  # a call of a form that the handler does not know
            return NotImplemented
        return value if self._fits(node, value) else NotImplemented

    def _not_supported(self, node: fx.Node, known: list[Any]) -> Value:
        """Freeze the channels that go into a node, if there are any, and return what comes out of it."""
        if any(isinstance(one, Channels) for one in known):
            return self.tracer.freeze_inputs(node, f"{operation(node)} ({place(node)}), which is not supported")
        # Nothing here can change, so nothing needs to be frozen; it is fixed for the reason of what goes in.
        self.tracer.compute_with(node, *known)
        return self.tracer.fixed(node, next(one.reason for one in known if _depends_on_images(one)))

    def _without_images(self, node: fx.Node, known: list[Any]) -> Value:
        """Return what is computed of weights and constants."""
        if any(isinstance(value, Weights) for value in known):
            result: Value = combine_weights(self.tracer, node)
            return result
        value = self.tracer.fixed(node, f"comes out of {node.name}", constant=True)
        if is_in_place(node) and operation(node) != "detach":
            self._forget_numbers(node)
        elif isinstance(value, FixedTensor):
            value = replace(value, number=_number(self.tracer, node))
        return value

    def _forget_numbers(self, node: fx.Node) -> None:
        """Record that the constants that share the memory of a node have been given other values."""
        for other, old in self.tracer.values.items():
            if isinstance(old, FixedTensor) and self._memory.get(other, other) is self._memory[node]:
                self.tracer.values[other] = replace(old, number=None)

    def _enter(self, graph: fx.Graph, arguments: list[Any]) -> Value:
        """Visit a graph within the graph, such as what a network computes without gradients."""
        inputs = [inner for inner in graph.nodes if inner.op == "placeholder"]
        for inner, outer in zip(inputs, arguments, strict=True):
            self.tracer.values[inner] = self.tracer.value(outer)
        return tuple(map(self.tracer.value, self.visit(graph)))  # type: ignore[arg-type]

    def _fits(self, node: fx.Node, value: Value) -> bool:
        """Return whether a tensor has as many features as its channels say: a check on the handler."""
        if not isinstance(value, Channels):
            return True
        shape = shape_of(node)
        if value.dim >= len(shape):
            return False
        outer = 1 if value.outer is None else shape[value.outer]
        return outer * shape[value.dim] == self.tracer.features(value.parts)

    def _share(self, node: fx.Node, other: Any) -> None:
        """Record that two nodes may share memory."""
        if isinstance(other, fx.Node):
            self._memory[node] = self._memory.get(other, other)

    def _overwrite(self, node: fx.Node, value: Value) -> None:
        """Give the values that an operator in place has changed to all tensors that share its memory.

        Whoever reads one of them from here on reads what this node wrote. After ``relu_(x)``, for example, a later use
        of ``x`` is behind the ReLU too, although its node comes before it in the graph.
        """
        memory = self._memory[node]
        for other, old in self.tracer.values.items():
            if self._memory.get(other, other) is not memory or not isinstance(old, Channels | FixedTensor):
                continue
            if isinstance(old, FixedTensor):  # made empty and filled in parts
                self.tracer.values[other] = replace(old, constant=False, number=None)
            elif shape_of(other) == shape_of(node) or not isinstance(value, Channels):
                self.tracer.values[other] = value
            elif any(part.ungated for part in value.parts):
                # A view of another shape: its channels are in other places, but they have lost their zeros as well.
                self.tracer.values[other] = old.without_gates(f"{operation(node)} changes it in place ({place(node)})")


def _number(tracer: ChannelTracer, node: fx.Node) -> float | None:
    """Return the value that all of a constant has, if the operator that it comes out of says it."""
    made = {"zeros": 0, "ones": 1, "full": argument(node, "fill_value"), "scalar_tensor": argument(node, "s")}
    return tracer.number(first(node) if operation(node) in _COPIES else made.get(operation(node)))


def _depends_on_images(value: Any) -> TypeGuard[FixedTensor]:
    """Return whether a tensor that cannot change depends on the images."""
    return isinstance(value, FixedTensor) and not value.constant


def _subgraph(node: fx.Node) -> tuple[fx.Graph, list[Any]] | None:
    """Return the graph that a higher-order operator runs and what it is given; None for any other operator."""
    for position, one in enumerate(node.args):
        if isinstance(one, fx.Node) and one.op == "get_attr" and one.graph.owning_module is not None:
            inner = getattr(one.graph.owning_module, str(one.target), None)
            if isinstance(inner, fx.GraphModule):
                return inner.graph, list(node.args[position + 1 :])
    return None
