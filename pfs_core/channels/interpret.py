"""The pass over a traced network: each node is given to the handler of its operation, in forward order.

This is an interpreter on abstract values: in place of tensors it computes which channels they consist of.
"""

from typing import Any

from torch import fx

from pfs_core.channels.abstract_values import Channels, FixedTensor, Shape, Size, Value
from pfs_core.channels.handlers.layers import Handler
from pfs_core.channels.handlers.operators import (
    FUNCTIONS,
    IN_PLACE,
    MODULES,
    RECTIFIER_MODULES,
    RECTIFIERS,
    SIZED,
    TENSOR_METHODS,
    VIEW_MODULES,
    VIEW_OPERATIONS,
    VIEWS,
)
from pfs_core.channels.nodes import shape_of, tensor_meta
from pfs_core.channels.tracer import ChannelTracer


def interpret(tracer: ChannelTracer, traced: fx.GraphModule, counts_macs: bool = True) -> set[str]:
    """Visit every node of a traced network, and record in ``tracer`` what the operations do to channels.

    Args:
        tracer: its values, groups, axes and terms are added to.
        traced: the network, with shapes propagated for ``tracer.batch`` images.
        counts_macs: whether the MACs of the layers count (their parameters always do, once).

    Returns:
        The names of the layers that were called on something that depends on the network's input.
    """
    tracer.begin_pass(traced, counts_macs)
    this_pass = _Pass(tracer)
    for node in traced.graph.nodes:
        if node.op == "output":
            for argument in node.all_input_nodes:
                if (x := tracer.channels(argument)) is not None:
                    tracer.freeze(x.parts, "the network's output")
        else:
            tracer.values[node] = this_pass.value_of(node)
    return this_pass.called


class _Pass:
    """One pass: the layers called so far, and which tensors share memory (``{node: node that owns the memory}``)."""

    def __init__(self, tracer: ChannelTracer) -> None:
        self.tracer = tracer
        self.called: set[str] = set()
        self._memory: dict[fx.Node, fx.Node] = {}

    def value_of(self, node: fx.Node) -> Value:
        """Return what a node computes, and record what it does to the channels that go into it."""
        tracer = self.tracer
        if node.op == "placeholder":
            shape = shape_of(node)
            return tracer.add_input(node, shape[1]) if len(shape) >= 2 else None
        if node.op == "get_attr":
            return FixedTensor(node.name, f"comes from the parameter {node.target}", constant=True)
        known: list[Any] = [value for value in map(tracer.value, node.all_input_nodes) if value is not None]
        if not known:  # it depends neither on the images nor on a width
            return FixedTensor(node.name, f"comes out of {node.name}", constant=True) if tensor_meta(node) else None
        if node.op == "call_module":
            self.called.add(str(node.target))
            # Gates in the official placement may have a depthwise BatchNorm behind them. A masked channel is then not
            # like an absent one, and must not leave during the search.
            if tracer.placement != "last" or not all(_is_rectifier(tracer, user) for user in node.users):
                tracer.unrectified.add(str(node.target))
        handler, operation = _handler_of(tracer, node)
        if handler not in SIZED and any(isinstance(each, Size | Shape) for each in known):
            handler = None
        try:
            value = handler(tracer, node) if handler else NotImplemented
        except (TypeError, IndexError):  # a call of a form that the handler does not know
            value = NotImplemented
        if value is NotImplemented or not self._fits(node, value):
            if all(isinstance(each, FixedTensor) for each in known):
                # Nothing here can change, so nothing needs to be frozen. The output depends on the images if an input
                # does, and then has that input's reason.
                return min(known, key=lambda fixed: fixed.constant) if tensor_meta(node) else None
            return tracer.freeze_inputs(node, f"{operation} ({node.name}), which is not supported")
        tensor, changed = node.all_input_nodes[0], _is_in_place(tracer, node)
        if changed or (handler and _is_view(tracer, node, handler)):
            self._memory[node] = self._memory.get(tensor, tensor)
        if changed:
            self._overwrite(node, value)
        result: Value = value
        return result

    def _fits(self, node: fx.Node, value: Value) -> bool:
        """Return whether a tensor has as many features as its channels say: a check on the handler."""
        if not isinstance(value, Channels):
            return True
        shape = shape_of(node)
        return value.dim < len(shape) and shape[value.dim] == self.tracer.features(value.parts)

    def _overwrite(self, node: fx.Node, value: Value) -> None:
        """Give the values that an operation in place has changed to all tensors that share its memory.

        Whoever reads one of them from here on reads what this node wrote. After ``F.relu_(x)``, for example, a later
        use of ``x`` is behind the ReLU too, although its node comes before it in the graph.
        """
        memory = self._memory[node]
        for other, old in self.tracer.values.items():
            if self._memory.get(other, other) is not memory or not isinstance(old, Channels):
                continue
            if shape_of(other) == shape_of(node) or not isinstance(value, Channels):
                self.tracer.values[other] = value
            elif any(part.ungated for part in value.parts):
                # A view of another shape: its channels are in other places, but they have lost their zeros as well.
                self.tracer.values[other] = old.without_gates(f"{node.name} changes it in place")


def _handler_of(tracer: ChannelTracer, node: fx.Node) -> tuple[Handler | None, str]:
    """Return the handler of a call, None if it has none, and what to call the operation in a reason."""
    if node.op == "call_module":
        module = tracer.module(node)
        if module._forward_hooks or module._forward_pre_hooks:
            return None, f"{type(module).__name__} with hooks"
        if tracer.shares_parameters(node):
            return None, f"{type(module).__name__} that shares a parameter with another layer"
        return MODULES.get(type(module)), type(module).__name__
    if node.op == "call_method":
        return TENSOR_METHODS.get(str(node.target)), f".{node.target}()"
    name = getattr(node.target, "__name__", str(node.target))
    path = f"{getattr(node.target, '__module__', '')}.{name}"
    return FUNCTIONS.get(node.target) or FUNCTIONS.get(path), name


def _is_in_place(tracer: ChannelTracer, node: fx.Node) -> bool:
    """Return whether a call changes the tensor that it works on."""
    if node.op == "call_module":
        return bool(getattr(tracer.module(node), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    return bool(node.kwargs.get("inplace")) or name.endswith("_") or node.target in IN_PLACE


def _is_view(tracer: ChannelTracer, node: fx.Node, handler: Handler) -> bool:
    """Return whether the output of a call may share memory with the tensor that it works on."""
    if node.op == "call_module":
        return isinstance(tracer.module(node), VIEW_MODULES)
    return handler in VIEWS or node.target in VIEW_OPERATIONS


def _is_rectifier(tracer: ChannelTracer, node: fx.Node) -> bool:
    """Return whether a call is ReLU or ReLU6, whose derivative at 0 is 0."""
    if node.op == "call_module":
        return isinstance(tracer.module(node), RECTIFIER_MODULES)
    return node.target in RECTIFIERS
