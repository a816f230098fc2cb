"""The state of a trace, and the operations on it that the handlers of layers and operators are written in.

The tracer knows no operation by name: that is in :mod:`pfs_core.channels.handlers`. It keeps groups, ties them
together, and collects what the channel graph consists of.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, FixedTensor, Shape, Size, TracedSlice, Value
from pfs_core.channels.graph import Axis, ChannelGraph, ChannelGroup, ChannelSlice, Role, Term
from pfs_core.channels.nodes import shape_of, tensor_meta

Policy = Literal["inner", "all"]
Placement = Literal["last", "official"]
BATCH = 2
"""Number of images in a trace. It is not 1, which training-mode BatchNorm refuses on maps of a single pixel."""


class _GroupDraft:
    """A group under construction; ``frozen``, ``stream`` and ``ungated`` are reasons, empty where they do not apply."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.blocks = 1
        self.gates: set[str] = set()
        self.frozen = ""
        self.stream = ""
        self.ungated = ""


class _TermDraft(NamedTuple):
    """A :class:`~pfs_core.channels.graph.Term` whose groups may still be merged."""

    module: str
    spans: tuple[tuple[TracedSlice, ...], ...]
    macs: int
    params: int
    groups: int


class ChannelTracer:
    """The groups, axes and cost terms found so far, and what is known of every node.

    A group is named by a number. Groups that turn out to be the same are merged in a union-find forest, so that numbers
    handed out earlier stay valid.

    Attributes:
        placement: as given.
        values: what is known of the output of each node.
        batch: the number of images that shapes were propagated for.
        unrectified: layers that cannot make a group *rectified* (see :class:`~pfs_core.channels.ChannelGroup`).

    Args:
        placement: ``last`` gates a group at the last BatchNorm before its channels are mixed, ``official`` at the
            first one.
        stream_layers: patterns of the layers whose outputs the network declares to be a residual stream.
    """

    def __init__(self, placement: Placement, stream_layers: Iterable[str]) -> None:
        self.placement = placement
        self.values: dict[fx.Node, Value] = {}
        self.batch = BATCH
        self.unrectified: set[str] = set()
        self._modules: dict[str, nn.Module] = {}
        self._counts_macs = True
        self._stream_layers = [re.compile(pattern) for pattern in stream_layers]
        self._drafts: list[_GroupDraft] = []
        self._parent: list[int] = []
        self._group_of_key: dict[str, int] = {}
        self._axes: dict[tuple[str, Role], tuple[TracedSlice, ...]] = {}
        self._terms: list[_TermDraft] = []
        self._counted: set[str] = set()
        self._with_shared_parameters: set[str] = set()

    def begin_pass(self, traced: fx.GraphModule, counts_macs: bool) -> None:
        """Prepare for a pass over the nodes of ``traced``; the MACs of their layers count only if ``counts_macs``."""
        self._counts_macs = counts_macs
        self._modules = dict(traced.named_modules())
        owners: dict[int, list[str]] = {}
        for name, module in self._modules.items():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(name)
        self._with_shared_parameters = {name for names in owners.values() if len(names) > 1 for name in names}

    # What handlers ask -------------------------------------------------------------------------------------------

    def value(self, node: Any) -> Value:
        """Return what is known of an argument."""
        return self.values.get(node) if isinstance(node, fx.Node) else None

    def channels(self, node: Any) -> Channels | None:
        """Return the channels of an argument; None if it is not a tensor with channels."""
        value = self.value(node)
        return value if isinstance(value, Channels) else None

    def parts_of_dim(self, node: Any, dim: int) -> tuple[TracedSlice, ...] | None:
        """Return the parts of dimension ``dim`` of an argument, for a layer that reads it; None if it has no channels.

        The dimension of a tensor that cannot change becomes a group of its own, frozen, so that the layer still has an
        input that is named in the graph.
        """
        value, shape = self.value(node), shape_of(node)
        if isinstance(value, Channels) and value.dim == dim % len(shape):
            return value.parts
        if isinstance(value, FixedTensor) and shape and not value.constant:
            group = self._group_for(f"<{value.origin}:{shape[dim]}>", value.origin, shape[dim])
            self.freeze((TracedSlice(group),), value.reason)
            return (TracedSlice(group),)
        return None

    def features(self, parts: Iterable[TracedSlice]) -> int:
        """Return the number of features that the parts have together."""
        return sum(part.repeat * self._draft(part.group).width for part in parts)

    def module(self, node: fx.Node) -> Any:
        """Return the module that a ``call_module`` node calls."""
        return self._modules[str(node.target)]

    def is_batch_norm(self, layer: str) -> bool:
        """Return whether the layer of that name is a BatchNorm."""
        return isinstance(self._modules[layer], nn.modules.batchnorm._BatchNorm)

    def first_call(self, node: fx.Node) -> bool:
        """Return whether the node's module is called for the first time: parameters count once, MACs in every call."""
        first = str(node.target) not in self._counted
        self._counted.add(str(node.target))
        return first

    def shares_parameters(self, node: fx.Node) -> bool:
        """Return whether another layer has one of the parameters of the node's module too."""
        return str(node.target) in self._with_shared_parameters

    # What handlers do --------------------------------------------------------------------------------------------

    def add_input(self, node: fx.Node, width: int) -> Channels:
        """Return the frozen group of the network's input, which has ``width`` channels on dimension 1."""
        part = TracedSlice(self._group_for(f"<{node.target}>", "input", width))
        self.freeze((part,), "the network's input")
        return Channels(1, (part,))

    def write_group(self, node: fx.Node, width: int, dim: int) -> Channels:
        """Return the group of ``width`` channels that the node's module writes; the same one if it is called again."""
        name = str(node.target)
        group = self._group_for(name, name, width)
        if any(pattern.fullmatch(name) for pattern in self._stream_layers):
            self._draft(group).stream = "as the network declares"
        # Until a BatchNorm follows, the layer itself is where a channel can be masked.
        out = Channels(dim, (TracedSlice(group, gates=frozenset([name])),))
        self.add_axis(node, "writes", out.parts)
        return out

    def read_channels(self, node: fx.Node, parts: tuple[TracedSlice, ...]) -> None:
        """Record that the node's module mixes these channels.

        The gates that the parts carry here become the gates of their groups: the last layers before the channels are
        mixed that can set one to 0, with nothing behind them that would turn the 0 into something else.
        """
        self.add_axis(node, "reads", parts)
        for part in parts:
            draft = self._draft(part.group)
            draft.gates |= part.gates
            draft.ungated = draft.ungated or part.ungated

    def add_axis(self, node: fx.Node, role: Role, parts: tuple[TracedSlice, ...]) -> None:
        """Record that one side of the node's module is as wide as the parts.

        A module that is called again has one width only, so its parts are unified with those of the first call.
        """
        name = str(node.target)
        before = self._axes.setdefault((name, role), parts)
        if before is not parts:
            self.unify(before, parts, f"{name} reads it in two ways")

    def unify(self, a: tuple[TracedSlice, ...], b: tuple[TracedSlice, ...], mismatch: str, stream: str = "") -> bool:
        """Merge the groups of ``a`` and ``b`` pairwise, and return whether that was possible.

        Where the borders between the groups differ, everything in both is frozen.

        Args:
            a: the parts of one tensor.
            b: the parts of another one with as many features.
            mismatch: the reason to freeze them for.
            stream: the addition that makes the groups a residual stream, if it is one.
        """
        if self._borders(a) != self._borders(b):
            self.freeze((*a, *b), mismatch)
            return False
        for one, other in zip(a, b, strict=True):
            self._merge(one.group, other.group, stream)
        return True

    def require_multiple(self, parts: tuple[TracedSlice, ...], groups: int) -> bool:
        """Keep the width a multiple of ``groups``, and return whether it is one now.

        The channels at the same place of every group then come and go together.
        """
        if len(parts) != 1 or parts[0].repeat != 1:
            return False
        draft = self._draft(parts[0].group)
        blocks = math.lcm(draft.blocks, groups)
        if draft.width % blocks:
            return False
        draft.blocks = blocks
        return True

    def freeze(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid any other width of the groups; the first reason given is the one that users see."""
        for part in parts:
            draft = self._draft(part.group)
            draft.frozen = draft.frozen or reason

    def forbid_gating(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid pruning the groups: a channel that is removed is not like one that is set to 0, wherever it is set."""
        for part in parts:
            draft = self._draft(part.group)
            draft.ungated = draft.ungated or reason

    def add_cost(
        self, node: fx.Node, spans: tuple[tuple[TracedSlice, ...], ...], macs: int, params: int, groups: int = 1
    ) -> None:
        """Add ``macs`` and ``params`` times the widths of ``spans`` (divided by ``groups``) to the cost."""
        self._terms.append(_TermDraft(str(node.target), spans, macs if self._counts_macs else 0, params, groups))

    def freeze_inputs(self, node: fx.Node, reason: str) -> FixedTensor | None:
        """Freeze all channels that go into an operation, and return its output, which is fixed for the same reason."""
        for argument in node.all_input_nodes:
            value = self.value(argument)
            if isinstance(value, Channels):
                self.freeze(value.parts, f"passes through {reason}")
            elif isinstance(value, Shape | Size):
                self.freeze(value.channels.parts, f"its width is used by {reason}")
        return FixedTensor(node.name, f"comes out of {reason}") if tensor_meta(node) else None

    def combine_with_fixed(self, node: fx.Node, a: Value, b: Value) -> Any:
        """Return the result of combining channels and a fixed tensor value by value: the channels are fixed as well."""
        x, fixed = (a, b) if isinstance(a, Channels) else (b, a)
        if not isinstance(x, Channels) or not isinstance(fixed, FixedTensor):
            return NotImplemented
        self.freeze(x.parts, f"{node.name} combines it with a tensor that {fixed.reason}")
        # A constant combined with channels depends on the images, so it is not a constant any more.
        return FixedTensor(node.name, f"is combined with a tensor that {fixed.reason}") if fixed.constant else fixed

    # The result --------------------------------------------------------------------------------------------------

    def build_graph(
        self,
        input_shape: tuple[int, int, int],
        policy: Policy,
        total_macs: int,
        total_params: int,
        widen_stream: bool,
    ) -> ChannelGraph:
        """Return the graph of everything visited; what no term accounts for of the totals is a constant term."""
        roots = [draft for number, draft in enumerate(self._drafts) if self._find(number) == number]
        groups = tuple(self._finished(draft, policy) for draft in roots)
        axes = [Axis(name, role, self._segments(parts)) for (name, role), parts in self._axes.items()]
        terms = [
            Term(draft.module, tuple(map(self._segments, draft.spans)), draft.macs, draft.params, draft.groups)
            for draft in self._terms
        ]
        widths = {group.name: group.width for group in groups}
        macs = total_macs - sum(term.macs * term.factor(widths) for term in terms)
        params = total_params - sum(term.params * term.factor(widths) for term in terms)
        terms.append(Term("", (), macs, params))
        return ChannelGraph(groups, tuple(axes), tuple(terms), input_shape, widen_stream)

    def _finished(self, draft: _GroupDraft, policy: Policy) -> ChannelGroup:
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
            rectified=not reason and not draft.gates & self.unrectified,
        )

    def _segments(self, parts: tuple[TracedSlice, ...]) -> tuple[ChannelSlice, ...]:
        return tuple(ChannelSlice(self._draft(part.group).name, part.repeat) for part in parts)

    # Groups ------------------------------------------------------------------------------------------------------

    def _group_for(self, key: str, name: str, width: int) -> int:
        """Return the group that was made for ``key``; where there is none, make one called ``name``."""
        if key not in self._group_of_key:
            taken = {draft.name for draft in self._drafts}
            if key != name and name in self._modules:  # a group of no layer must not be called like one
                name = f"<{name}>"
            while name in taken:
                name += "'"
            self._drafts.append(_GroupDraft(name, width))
            self._parent.append(len(self._parent))
            self._group_of_key[key] = len(self._parent) - 1
        return self._group_of_key[key]

    def _merge(self, a: int, b: int, stream: str) -> None:
        """Make two groups one, with the name of the earlier one and the restrictions of both."""
        first, second = sorted((self._find(a), self._find(b)))
        kept, other = self._drafts[first], self._drafts[second]
        kept.stream = kept.stream or other.stream or stream
        if first == second:
            return
        self._parent[second] = first
        kept.gates |= other.gates
        kept.frozen = kept.frozen or other.frozen
        kept.ungated = kept.ungated or other.ungated
        kept.blocks = math.lcm(kept.blocks, other.blocks)
        if kept.width % kept.blocks:
            kept.frozen = kept.frozen or f"its grouped convolutions need a multiple of {kept.blocks} channels"
            kept.blocks = 1

    def _borders(self, parts: tuple[TracedSlice, ...]) -> list[tuple[int, int]]:
        """Return what two rows of parts must have in common to be unified: repetition and width of each part."""
        return [(part.repeat, self._draft(part.group).width) for part in parts]

    def _find(self, group: int) -> int:
        """Return the number of the group that a group has been merged into."""
        while self._parent[group] != group:
            group = self._parent[group]
        return group

    def _draft(self, group: int) -> _GroupDraft:
        return self._drafts[self._find(group)]
