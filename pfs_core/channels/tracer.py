"""One pass over a traced graph: the state that operator handlers read and write."""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

from torch import fx

from pfs_core.channels.abstract_values import Channels, Fixed, Shape, Size, TracedSlice, Value
from pfs_core.channels.graph import Axis, ChannelGraph, ChannelGroup, ChannelSlice, Role, Term
from pfs_core.channels.handlers.operators import SIZED, handler_of, in_place, is_rectifier, is_view
from pfs_core.channels.slices import shape_of, sizes_of

Policy = Literal["inner", "all"]
Placement = Literal["last", "official"]
BATCH = 2


class _Draft:
    """A group under construction."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.blocks = 1
        self.gates: set[str] = set()
        self.frozen = ""
        self.stream = ""
        self.ungated = ""


class ChannelTracer:
    """Groups, axes and terms, as found so far.

    Args:
        placement: ``last`` gates a group at the last BatchNorm before its channels are mixed, ``official`` at the
            first one.
        stream_layers: patterns of the layers whose outputs the network declares to be a residual stream.
    """

    def __init__(self, placement: Placement, stream_layers: Iterable[str]) -> None:
        self.placement = placement
        self.modules: dict[str, Any] = {}
        self.batch = BATCH
        self.counting = True
        self._stream_layers = [re.compile(pattern) for pattern in stream_layers]
        self._values: dict[fx.Node, Value] = {}
        self._drafts: list[_Draft] = []
        self._root: list[int] = []
        self._written: dict[str, int] = {}
        self._axes: dict[tuple[str, Role], tuple[TracedSlice, ...]] = {}
        self._terms: list[tuple[str, tuple[tuple[TracedSlice, ...], ...], int, int, int]] = []
        self._counted: set[str] = set()
        self._called: set[str] = set()
        self._bare: set[str] = set()
        self._shared: set[str] = set()
        self._memory: dict[fx.Node, fx.Node] = {}

    # What handlers ask -------------------------------------------------------------------------------------------

    def value(self, node: Any) -> Value:
        """What is known of an argument."""
        return self._values.get(node) if isinstance(node, fx.Node) else None

    def channels(self, node: Any) -> Channels | None:
        """The argument's channels, if it is a tensor with channels."""
        value = self.value(node)
        return value if isinstance(value, Channels) else None

    def parts_of_dim(self, node: Any, dim: int) -> tuple[TracedSlice, ...] | None:
        """The parts of an argument's dimension ``dim``, for a layer that reads it; None if it is not of channels.

        The dimension of a tensor that cannot change becomes a group of its own, frozen.
        """
        value, shape = self.value(node), shape_of(node)
        if isinstance(value, Channels) and value.dim == dim % len(shape):
            return value.parts
        if isinstance(value, Fixed) and shape and not value.constant:
            group = self._named(f"<{value.origin}:{shape[dim]}>", value.origin, shape[dim])
            self.freeze((TracedSlice(group),), value.reason)
            return (TracedSlice(group),)
        return None

    def module(self, node: fx.Node) -> Any:
        """The module a ``call_module`` node calls."""
        return self.modules[str(node.target)]

    def first_call(self, node: fx.Node) -> bool:
        """Whether the node's module has not been called before (its parameters count once)."""
        first = str(node.target) not in self._counted
        self._counted.add(str(node.target))
        return first

    def called(self, module: str) -> bool:
        """Whether a layer of that name has been visited."""
        return module in self._called

    def shared(self, module: str) -> bool:
        """Whether another layer has one of that layer's parameters too."""
        return module in self._shared

    # What handlers do --------------------------------------------------------------------------------------------

    def writes(self, node: fx.Node, width: int, dim: int) -> Channels:
        """A group of ``width`` channels that this node's module writes; the same one if it is called again."""
        name = str(node.target)
        group = self._named(name, name, width)
        if any(pattern.fullmatch(name) for pattern in self._stream_layers):
            self._draft(group).stream = "as the network declares"
        out = Channels(dim, (TracedSlice(group, gates=frozenset([name])),))
        self.spans(node, "writes", out.parts)
        return out

    def reads(self, node: fx.Node, parts: tuple[TracedSlice, ...]) -> None:
        """The node's module mixes these channels."""
        self.spans(node, "reads", parts)
        for part in parts:
            draft = self._draft(part.group)
            draft.gates |= part.gates
            draft.ungated = draft.ungated or part.ungated

    def spans(self, node: fx.Node, role: Role, parts: tuple[TracedSlice, ...]) -> None:
        """One side of this node's module follows the parts: those of an earlier call, if it is called again."""
        name = str(node.target)
        before = self._axes.setdefault((name, role), parts)
        if before is not parts:
            self.unify(before, parts, f"{name} reads it in two ways")

    def unify(self, a: tuple[TracedSlice, ...], b: tuple[TracedSlice, ...], mismatch: str, stream: str = "") -> bool:
        """Make the groups of two equal rows of parts one by one the same; ``stream`` is the addition that does it.

        Where the rows have other borders, everything in them is frozen for the reason ``mismatch``.
        """
        fits = [(p.repeat, self._draft(p.group).width) for p in a] == [
            (p.repeat, self._draft(p.group).width) for p in b
        ]
        if not fits:
            self.freeze((*a, *b), mismatch)
            return False
        for one, other in zip(a, b, strict=True):
            self._join(one.group, other.group, stream)
        return True

    def require_multiple(self, parts: tuple[TracedSlice, ...], groups: int) -> bool:
        """Keep the width a multiple of ``groups``, its channels coming and going in all of them; False if it is not."""
        if len(parts) != 1 or parts[0].repeat != 1:
            return False
        draft = self._draft(parts[0].group)
        blocks = math.lcm(draft.blocks, groups)
        if draft.width % blocks:
            return False
        draft.blocks = blocks
        return True

    def freeze(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """The groups must keep their width."""
        for part in parts:
            draft = self._draft(part.group)
            draft.frozen = draft.frozen or reason

    def forbid_gating(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Removing a channel of these groups is not the same as setting it to 0, wherever that is done."""
        for part in parts:
            draft = self._draft(part.group)
            draft.ungated = draft.ungated or reason

    def add_cost(
        self, node: fx.Node, spans: tuple[tuple[TracedSlice, ...], ...], macs: int, params: int, groups: int = 1
    ) -> None:
        """Add ``macs`` and ``params`` times the widths of ``spans`` (divided by ``groups``) to the cost."""
        self._terms.append((str(node.target), spans, macs if self.counting else 0, params, groups))

    def stop(self, node: fx.Node, reason: str) -> Fixed | None:
        """Freeze all channels that go into an operation, for a ``reason`` that the operation's output inherits."""
        for argument in node.all_input_nodes:
            value = self.value(argument)
            if isinstance(value, Channels):
                self.freeze(value.parts, f"passes through {reason}")
            elif isinstance(value, Shape | Size):
                self.freeze(value.of.parts, f"its width is used by {reason}")
        return Fixed(node.name, f"comes out of {reason}") if sizes_of(node) else None

    def mix(self, node: fx.Node, a: Value, b: Value) -> Any:
        """Channels and a tensor that cannot change, combined value by value: the channels cannot change either."""
        x, fixed = (a, b) if isinstance(a, Channels) else (b, a)
        if not isinstance(x, Channels) or not isinstance(fixed, Fixed):
            return NotImplemented
        self.freeze(x.parts, f"{node.name} combines it with a tensor that {fixed.reason}")
        return Fixed(node.name, f"is combined with a tensor that {fixed.reason}") if fixed.constant else fixed

    # The pass ----------------------------------------------------------------------------------------------------

    def visit_all(self, traced: fx.GraphModule, counting: bool = True) -> None:
        """Visit every node of a traced network, in order."""
        self.counting = counting
        self.modules = dict(traced.named_modules())
        owners: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(name)
        self._shared = {name for names in owners.values() if len(names) > 1 for name in names}
        for node in traced.graph.nodes:
            if node.op == "output":
                for argument in node.all_input_nodes:
                    if (x := self.channels(argument)) is not None:
                        self.freeze(x.parts, "the network's output")
            else:
                self._values[node] = self._visit(node)

    def _visit(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "get_attr":
            return Fixed(node.name, f"comes from the parameter {node.target}", constant=True)
        known: list[Any] = [value for value in map(self.value, node.all_input_nodes) if value is not None]
        if not known:
            return Fixed(node.name, f"comes out of {node.name}", constant=True) if sizes_of(node) else None
        if node.op == "call_module":
            self._called.add(str(node.target))
            if self.placement != "last" or not all(is_rectifier(self, user) for user in node.users):
                self._bare.add(str(node.target))
        handler, what = handler_of(self, node)
        if handler not in SIZED and any(isinstance(value, Size | Shape) for value in known):
            handler = None
        try:
            value = handler(self, node) if handler else NotImplemented
        except (TypeError, IndexError):  # a call of a form that the handler does not know
            value = NotImplemented
        if value is NotImplemented or not self._fits(node, value):
            if all(isinstance(value, Fixed) for value in known):
                return min(known, key=lambda fixed: fixed.constant) if sizes_of(node) else None
            return self.stop(node, f"{what} ({node.name}), which is not supported")
        tensor, changed = node.all_input_nodes[0], in_place(self, node)
        if changed or (handler and is_view(self, node, handler)):
            self._memory[node] = self._memory.get(tensor, tensor)
        if changed:
            self._overwritten(node, value)
        return value

    def _fits(self, node: fx.Node, value: Value) -> bool:
        """Whether a tensor has as many features as its channels say."""
        if not isinstance(value, Channels):
            return True
        shape, features = shape_of(node), sum(p.repeat * self._draft(p.group).width for p in value.parts)
        return value.dim < len(shape) and shape[value.dim] == features

    def _overwritten(self, node: fx.Node, value: Value) -> None:
        """Who reads the same memory by another name from here on reads what this node wrote to it."""
        memory = self._memory[node]
        for other, old in self._values.items():
            if self._memory.get(other, other) is not memory or not isinstance(old, Channels):
                continue
            if shape_of(other) == shape_of(node) or not isinstance(value, Channels):
                self._values[other] = value
            elif any(part.ungated for part in value.parts):
                self._values[other] = old.lose_gates(f"{node.name} changes it in place")

    def _input(self, node: fx.Node) -> Value:
        shape = shape_of(node)
        if len(shape) < 2:
            return None
        part = TracedSlice(self._named(f"<{node.target}>", "input", shape[1]))
        self.freeze((part,), "the network's input")
        return Channels(1, (part,))

    def finish(
        self,
        input_shape: tuple[int, int, int],
        policy: Policy,
        total_macs: int,
        total_params: int,
        widen_stream: bool,
    ) -> ChannelGraph:
        """The graph of everything visited; what no term accounts for of the totals is a constant term."""
        groups = tuple(_group(d, policy, self._bare) for i, d in enumerate(self._drafts) if self._find(i) == i)
        axes = [Axis(name, role, self._segments(parts)) for (name, role), parts in self._axes.items()]
        terms = [
            Term(module, tuple(map(self._segments, spans)), macs, params, groups)
            for module, spans, macs, params, groups in self._terms
        ]
        widths = {group.name: group.width for group in groups}
        macs = total_macs - sum(term.macs * term.factor(widths) for term in terms)
        params = total_params - sum(term.params * term.factor(widths) for term in terms)
        terms.append(Term("", (), macs, params))
        return ChannelGraph(groups, tuple(axes), tuple(terms), input_shape, widen_stream)

    def _segments(self, parts: tuple[TracedSlice, ...]) -> tuple[ChannelSlice, ...]:
        return tuple(ChannelSlice(self._draft(part.group).name, part.repeat) for part in parts)

    def _named(self, key: str, name: str, width: int) -> int:
        """The group made for ``key``, made now if there is none."""
        if key not in self._written:
            taken = {draft.name for draft in self._drafts}
            if key != name and name in self.modules:
                name = f"<{name}>"
            while name in taken:
                name += "'"
            self._drafts.append(_Draft(name, width))
            self._root.append(len(self._root))
            self._written[key] = len(self._root) - 1
        return self._written[key]

    def _join(self, a: int, b: int, stream: str) -> None:
        keep, gone = sorted((self._find(a), self._find(b)))
        kept, other = self._drafts[keep], self._drafts[gone]
        kept.stream = kept.stream or other.stream or stream
        if keep == gone:
            return
        self._root[gone] = keep
        kept.gates |= other.gates
        kept.frozen = kept.frozen or other.frozen
        kept.ungated = kept.ungated or other.ungated
        kept.blocks = math.lcm(kept.blocks, other.blocks)
        if kept.width % kept.blocks:
            kept.frozen = kept.frozen or f"its grouped convolutions need a multiple of {kept.blocks} channels"
            kept.blocks = 1

    def _find(self, group: int) -> int:
        while self._root[group] != group:
            group = self._root[group]
        return group

    def _draft(self, group: int) -> _Draft:
        return self._drafts[self._find(group)]


def _group(draft: _Draft, policy: Policy, bare: set[str]) -> ChannelGroup:
    reason = draft.frozen
    if not reason and draft.stream and policy == "inner":
        reason = f"residual stream, {draft.stream} (policy all prunes it)"
    if not reason and (draft.ungated or not draft.gates):
        reason = f"cannot be gated: {draft.ungated or 'no layer reads it'}"
    return ChannelGroup(
        name=draft.name,
        width=draft.width,
        prunable=not reason,
        resizable=not draft.frozen,
        stream=bool(draft.stream),
        reason=reason,
        blocks=draft.blocks,
        gates=tuple(sorted(draft.gates)) if not reason else (),
        rectified=not reason and not draft.gates & bare,
    )
