"""The state of a trace, and the operations on it that the handlers of operators are written in.

The tracer knows no operator by name: that is in :mod:`pfs_core.channels.handlers`. It collects what the channel graph
consists of; how groups are tied together is in :mod:`pfs_core.channels.groups`.
"""

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, FixedTensor, Span, TracedSlice, Value, Weights
from pfs_core.channels.elements import Axis, AxisTensor, ChannelGroup, ChannelSlice, Role, Sizes, Term
from pfs_core.channels.graph import ChannelGraph
from pfs_core.channels.groups import GroupDraft, Parts
from pfs_core.channels.nodes import is_rectifier, is_tensor, modules_around, operation, place, shape_of
from pfs_core.channels.passed_sizes import PassedSizes
from pfs_core.channels.width_attributes import GATED, WidthAttributes

Policy = Literal["inner", "all"]
Placement = Literal["last", "official"]
BATCH = 2
"""Number of images in a trace. It is not 1, which training-mode BatchNorm refuses on maps of a single pixel."""


class _SpanDraft(NamedTuple):
    """What is on one dimension of a parameter: the parts, and how many groups of a convolution share it."""

    parts: Parts
    shares: int


class Layer(NamedTuple):
    """The layer that an operator computes, by its weight.

    Attributes:
        name: path of its module; of a parameter that is not the weight of a module alone, the path of the parameter.
        gate: its name where its output can be multiplied by gates, else empty.
    """

    name: str
    gate: str


class ChannelTracer(WidthAttributes):
    """The groups, axes and cost terms found so far, and what is known of every node.

    Attributes:
        placement: as given.
        values: what is known of the output of each node.
        counts_macs: whether what is visited counts in the cost of an image.
        unrectified: layers that cannot make a group *rectified* (see :class:`~pfs_core.channels.ChannelGroup`).

    Args:
        model: the network.
        placement: ``last`` gates a group at the last BatchNorm before its channels are mixed, ``official`` at the
            first one.
        stream_layers: patterns of the layers whose outputs the network declares to be a residual stream.
        passed: the attributes that are passed as sizes.
    """

    def __init__(
        self,
        model: nn.Module,
        placement: Placement,
        stream_layers: Iterable[str],
        passed: PassedSizes,
    ) -> None:
        self.placement = placement
        self.values: dict[fx.Node, Value] = {}
        self.counts_macs = True
        self.unrectified: set[str] = set()
        super().__init__(model, passed)
        self._parameters = dict(model.named_parameters())
        self._stream_layers = [re.compile(pattern) for pattern in stream_layers]
        self._axes: dict[tuple[str, Role], tuple[Parts, dict[AxisTensor, None]]] = {}
        self._trailing: dict[tuple[str, Role], int] = {}
        self._spans: dict[Span, _SpanDraft] = {}
        self._computed: dict[Span, str] = {}
        self._terms: list[tuple[str, tuple[Parts, ...], int, int]] = []
        self._shared = _shared_parameters(model)

    # What handlers ask -------------------------------------------------------------------------------------------

    def value(self, node: Any) -> Value:
        """Return what is known of an argument."""
        return self.values.get(node) if isinstance(node, fx.Node) else None

    def channels(self, node: Any) -> Channels | None:
        """Return the channels of an argument; None if it is not a tensor with channels."""
        value = self.value(node)
        return value if isinstance(value, Channels) else None

    def weights(self, node: Any) -> Weights:
        """Return what is known of an argument that holds weights; of a tensor that is none, that nothing is."""
        value = self.value(node)
        return value if isinstance(value, Weights) else Weights()

    def number(self, node: Any) -> float | None:
        """Return the number that an argument is, or that all of a constant is; None if it is none."""
        value = self.value(node)
        if isinstance(value, FixedTensor):
            return value.number
        return node if isinstance(node, int | float) else None

    def parts_of_dim(self, node: Any, dim: int) -> Parts | None:
        """Return the parts of dimension ``dim`` of an argument, for a layer that reads it; None if it has no channels.

        The dimension of a tensor that cannot change becomes a group of its own, frozen, so that the layer still has an
        input that is named in the graph.
        """
        value, shape = self.value(node), shape_of(node)
        if isinstance(value, Channels) and value.dim == dim % len(shape) and value.outer is None:
            return value.parts
        if isinstance(value, FixedTensor) and shape and not value.constant:
            return self._fixed_parts(value, shape[dim])
        return None

    def constant_parts(self, node: Any, dim: int) -> Parts | None:
        """Return dimension ``dim`` of a constant as a frozen group; None if the argument is no constant."""
        value, shape = self.value(node), shape_of(node)
        return self._fixed_parts(value, shape[dim]) if isinstance(value, FixedTensor) and value.constant else None

    def _fixed_parts(self, value: FixedTensor, width: int) -> Parts:
        part = TracedSlice(self._group_for(f"<{value.origin}:{width}>", value.origin, width))
        self.freeze((part,), value.reason)
        return (part,)

    def layer(self, node: fx.Node, weight: Any) -> Layer:
        """Return the layer that an operator computes with the argument ``weight``.

        It can be gated if it is computed by a module of a known class that holds the weight itself: what the module
        returns is then what the operator computes, up to what the class does behind it.
        """
        layer = self._layer(node, self.weights(weight))
        # Gates in the official placement may have a depthwise BatchNorm behind them. A masked channel is then not like
        # an absent one, and must not leave during the search.
        if self.placement != "last" or not all(map(is_rectifier, node.users)):
            self.unrectified.add(layer.name)
        return layer

    def _layer(self, node: fx.Node, weight: Weights) -> Layer:
        owners = {span.tensor.rpartition(".")[0] for span in weight.spans()}
        for path in modules_around(node):
            module = self._modules.get(path)
            if isinstance(module, GATED) and (not owners or any(_is_in(owner, path) for owner in owners)):
                name = self._first_path[path]
                return Layer(name, name)
        if not owners:
            path = next(iter(modules_around(node)), "")
            alone = path in self._modules and not any(self._modules[path].children())
            return Layer(self._first_path[path] if alone else f"<{node.name}>", "")
        tensor = min(span.tensor for span in weight.spans())
        path, _, name = tensor.rpartition(".")
        return Layer(path if name == "weight" and path else tensor, "")

    def module(self, layer: str) -> nn.Module | None:
        """Return the module of a layer, None for a parameter that has none to itself."""
        return self._modules.get(layer)

    def is_batch_norm(self, layer: str) -> bool:
        """Return whether the layer of that name is a BatchNorm."""
        return isinstance(self._modules.get(layer), nn.modules.batchnorm._BatchNorm)

    def tensors(self, weight: Any, dim: int, shares: int = 1) -> list[AxisTensor]:
        """Return the parameters and buffers that dimension ``dim`` of an argument comes from."""
        spans = self.weights(weight).dims.get(dim, ())
        return [AxisTensor(span.tensor, span.dim, shares) for span in sorted(spans)]

    # What handlers do --------------------------------------------------------------------------------------------

    def add_input(self, node: fx.Node, width: int) -> Channels:
        """Return the frozen group of the network's input, which has ``width`` channels on dimension 1."""
        part = TracedSlice(self._group_for(f"<{node.target}>", "input", width))
        self.freeze((part,), "the network's input")
        return Channels(1, (part,))

    def write_group(self, layer: Layer, shape: tuple[int, ...], dim: int, tensors: Iterable[AxisTensor]) -> Channels:
        """Return the group of channels that a layer writes on ``dim`` of ``shape``; the same one if it is called again.

        The rows of ``tensors`` come and go with the channels.
        """
        group = self._group_for(layer.name, layer.name, shape[dim])
        if any(pattern.fullmatch(layer.name) for pattern in self._stream_layers):
            for part in self._resolved((TracedSlice(group),)):
                self._drafts[part.group].stream = "as the network declares"
        out = Channels(dim, (TracedSlice(group),))
        self.add_axis(layer.name, "writes", out.parts, tensors, trailing=len(shape) - 1 - dim)
        # Until a BatchNorm follows, the layer itself is where a channel can be masked.
        if layer.gate:
            return out.gated_by([layer.gate])
        return out.without_gates(f"{layer.name} is not computed by a layer of its own")

    def read_channels(self, layer: str, parts: Parts, tensors: Iterable[AxisTensor]) -> None:
        """Record that a layer mixes these channels, by columns of ``tensors``."""
        self.add_axis(layer, "reads", parts, tensors)
        self.mix(parts)

    def mix(self, parts: Parts) -> None:
        """Record that channels are mixed here, so that one that is 0 acts like one that is absent.

        The gates that the parts carry here become the gates of their groups: the last layers before the channels are
        mixed that can set one to 0, with nothing behind them that would turn the 0 into something else.
        """
        for part in self._resolved(parts):
            draft = self._drafts[part.group]
            draft.gates |= part.gates or part.spare
            draft.ungated = draft.ungated or ("" if part.spare else part.ungated)

    def offer_gate(self, node: fx.Node, x: Channels, module: str) -> Channels:
        """Return what a module returns: where no layer can set channels to 0, the module can."""
        ungated = any(part.ungated and not part.spare for part in x.parts)
        if not ungated or x.outer is not None or isinstance(self._modules.get(module, None), GATED):
            return x
        self.add_axis(module, "gate", x.parts, trailing=len(shape_of(node)) - 1 - x.dim)
        if not all(map(is_rectifier, node.users)):
            self.unrectified.add(module)
        return x.with_spare(module)

    def add_axis(
        self, layer: str, role: Role, parts: Parts, tensors: Iterable[AxisTensor] = (), trailing: int = 0
    ) -> None:
        """Record that one side of a layer, and with it dimensions of its tensors, is as wide as the parts.

        A layer that is called again, and a tensor that is used again, have one width only, so the parts are unified
        with those of the first use.
        """
        before, of_axis = self._axes.setdefault((layer, role), (parts, {}))
        self._trailing[layer, role] = trailing
        if before is not parts:
            self.unify(before, parts, f"{layer} reads it in two ways")
        for tensor in tensors:
            of_axis[tensor] = None
            spanned = self._spans.setdefault(Span(tensor.name, tensor.dim), _SpanDraft(parts, tensor.shares))
            if spanned.parts is not parts:
                self.unify(spanned.parts, parts, f"{tensor.name} is used in two ways")
            if spanned.shares != tensor.shares:
                self.freeze((*spanned.parts, *parts), f"{tensor.name} is used in two ways")
            if tensor.name in self._shared:
                self.freeze(parts, f"passes through {layer}, which shares a parameter with another layer")

    def compute_with(self, node: fx.Node, *values: Value) -> None:
        """Record that something is computed from weights that depends on how many there are: they stay as they are."""
        for value in values:
            for span in value.spans() if isinstance(value, Weights) else ():
                self._computed.setdefault(
                    span, f"{span.tensor} is read outside its layer, by {operation(node)} ({place(node)})"
                )

    def add_macs(self, layer: str, spans: tuple[Parts, ...], macs: int, groups: int = 1) -> None:
        """Add ``macs`` times the widths of ``spans`` (divided by ``groups``) to the cost of :data:`BATCH` images."""
        self._terms.append((layer, spans, macs if self.counts_macs else 0, groups))

    def freeze_inputs(self, node: fx.Node, reason: str) -> Value:
        """Freeze all channels that go into an operator, and return its output, which is fixed for the same reason."""
        for one in node.all_input_nodes:
            for value in _each(self.value(one)):
                if isinstance(value, Channels):
                    self.freeze(value.parts, f"passes through {reason}")
                else:
                    self.compute_with(node, value)
        return self.fixed(node, f"comes out of {reason}")

    def fixed(self, node: fx.Node, reason: str, constant: bool = False) -> Value:
        """Return the output of an operator, tensor by tensor, as fixed."""
        fixed = FixedTensor(node.name, reason, constant)
        value = node.meta.get("val")
        if isinstance(value, tuple | list):
            return tuple(fixed for _ in value)
        return fixed if is_tensor(node) else None

    # The result --------------------------------------------------------------------------------------------------

    def read_tensors(self) -> set[str]:
        """Return the parameters and buffers of which a dimension is on an axis, or that were computed with."""
        return {span.tensor for span in (*self._spans, *self._computed)}

    def build_graph(
        self,
        input_shape: tuple[int, int, int],
        policy: Policy,
        total_macs: int,
        total_params: int,
        widen_stream: bool,
    ) -> ChannelGraph:
        """Return the graph of everything visited; what no term accounts for of the totals is a constant term."""
        for span, reason in self._computed.items():
            if span in self._spans:
                self.freeze(self._spans[span].parts, reason)
        self.add_sizes_of_weights({span: draft.parts for span, draft in self._spans.items()})
        roots = [draft for draft, parent in zip(self._drafts, self._parent, strict=True) if not parent]
        groups = tuple(self._finished(draft, policy) for draft in roots)
        axes = [
            Axis(name, role, self._segments(parts), tuple(tensors), self._trailing[name, role])
            for (name, role), (parts, tensors) in self._axes.items()
        ]
        terms = self._cost_terms()
        widths = {group.name: group.width for group in groups}
        macs = total_macs - sum(term.macs * term.factor(widths) for term in terms)
        params = total_params - sum(term.params * term.factor(widths) for term in terms)
        terms.append(Term("", (), macs, params))
        sizes = [
            Sizes(*attribute, tuple(map(self._segments, rows)), self._units.get(attribute, Fraction(1)))
            for attribute, rows in self._sizes.items()
        ]
        return ChannelGraph(groups, tuple(axes), tuple(terms), input_shape, widen_stream, tuple(sizes))

    def _cost_terms(self) -> list[Term]:
        """Return the terms of the MACs, with the parameters of the same layer where they span the same channels."""
        terms: dict[tuple[str, tuple[tuple[ChannelSlice, ...], ...], int], tuple[int, int]] = {}
        for layer, rows, macs, groups in self._terms:
            key = (layer, tuple(map(self._segments, rows)), groups)
            before, params = terms.get(key, (0, 0))
            terms[key] = (before + macs, params)
        terms = {key: (macs // BATCH, params) for key, (macs, params) in terms.items()}
        layer_of = {tensor.name: layer for (layer, _), (_, tensors) in self._axes.items() for tensor in tensors}
        for name, parameter in self._parameters.items():
            on = {span.dim: draft for span, draft in self._spans.items() if span.tensor == name}
            if not on:
                continue
            rest = math.prod(size for dim, size in enumerate(parameter.shape) if dim not in on)
            spans = tuple(self._segments(draft.parts) for _, draft in sorted(on.items(), reverse=True))
            key = (layer_of[name], spans, math.prod(draft.shares for draft in on.values()))
            macs, params = terms.get(key, (0, 0))
            terms[key] = (macs, params + rest)
        return [Term(layer, spans, macs, params, groups) for (layer, spans, groups), (macs, params) in terms.items()]

    def _finished(self, draft: GroupDraft, policy: Policy) -> ChannelGroup:
        reason = draft.frozen
        if not reason and draft.stream and policy == "inner":
            reason = f"residual stream, {draft.stream} (policy all prunes it)"
        if not reason and (draft.ungated or not draft.gates):
            reason = f"cannot be gated: {draft.ungated or 'no layer reads it'}"
        if not reason and draft.unit > 1 and draft.width == draft.blocks * draft.unit:
            reason = "its norms join all of its channels"
        return ChannelGroup(
            name=draft.name,
            width=draft.width,
            prunable=not reason,
            resizable=not draft.frozen,
            stream=bool(draft.stream),
            reason=reason,
            blocks=draft.blocks,
            unit=draft.unit,
            gates=tuple(sorted(draft.gates)) if not reason else (),
            rectified=not reason and not draft.gates & self.unrectified,
        )

    def _segments(self, parts: Parts) -> tuple[ChannelSlice, ...]:
        resolved = self.joined(self._resolved(parts))
        return tuple(ChannelSlice(self._drafts[p.group].name, p.repeat, p.block, p.blocks) for p in resolved)


def _each(value: Value) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_in(owner: str, path: str) -> bool:
    """Return whether a module is ``path`` or in it, such as the parametrization of its weight."""
    return owner == path or owner.startswith(f"{path}.")


def _shared_parameters(model: nn.Module) -> set[str]:
    """Return the names of parameters that two modules have (one module that has two names is one)."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}
