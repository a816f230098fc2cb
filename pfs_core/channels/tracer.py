"""The state of a trace, and the operations on it that the handlers of operators are written in.

The tracer knows no operator by name: that is in :mod:`pfs_core.channels.handlers`. It keeps groups, ties them
together, and collects what the channel graph consists of.
"""

import functools
import math
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from torch import fx, nn

from pfs_core.channels.abstract_values import Channels, FixedTensor, Span, TracedSlice, Value, Weights
from pfs_core.channels.graph import Axis, AxisTensor, ChannelGraph, ChannelGroup, ChannelSlice, Role, Sizes, Term
from pfs_core.channels.nodes import is_rectifier, is_tensor, modules_around, operation, place, shape_of

Policy = Literal["inner", "all"]
Placement = Literal["last", "official"]
BATCH = 2
"""Number of images in a trace. It is not 1, which training-mode BatchNorm refuses on maps of a single pixel."""
GATED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase)
"""Layers whose output can be multiplied by gates."""

Parts = tuple[TracedSlice, ...]


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
        model: the network.
        placement: ``last`` gates a group at the last BatchNorm before its channels are mixed, ``official`` at the
            first one.
        stream_layers: patterns of the layers whose outputs the network declares to be a residual stream.
    """

    def __init__(self, model: nn.Module, placement: Placement, stream_layers: Iterable[str]) -> None:
        self.placement = placement
        self.values: dict[fx.Node, Value] = {}
        self.batch = BATCH
        self.counts_macs = True
        self.unrectified: set[str] = set()
        self._modules = dict(model.named_modules(remove_duplicate=False))
        first_path = {id(module): path for path, module in model.named_modules()}
        self._first_path = {path: first_path[id(module)] for path, module in self._modules.items()}
        self._parameters = dict(model.named_parameters())
        self._stream_layers = [re.compile(pattern) for pattern in stream_layers]
        self._drafts: list[_GroupDraft] = []
        self._parent: list[Parts] = []
        self._group_of_key: dict[str, int] = {}
        self._axes: dict[tuple[str, Role], tuple[Parts, dict[AxisTensor, None]]] = {}
        self._trailing: dict[tuple[str, Role], int] = {}
        self._spans: dict[Span, _SpanDraft] = {}
        self._computed: dict[Span, str] = {}
        self._sizes: dict[tuple[str, str], list[Parts]] = {}
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

    def parts_of_dim(self, node: Any, dim: int) -> Parts | None:
        """Return the parts of dimension ``dim`` of an argument, for a layer that reads it; None if it has no channels.

        The dimension of a tensor that cannot change becomes a group of its own, frozen, so that the layer still has an
        input that is named in the graph.
        """
        value, shape = self.value(node), shape_of(node)
        if isinstance(value, Channels) and value.dim == dim % len(shape) and value.outer is None:
            return value.parts
        if isinstance(value, FixedTensor) and shape and not value.constant:
            group = self._group_for(f"<{value.origin}:{shape[dim]}>", value.origin, shape[dim])
            self.freeze((TracedSlice(group),), value.reason)
            return (TracedSlice(group),)
        return None

    def features(self, parts: Iterable[TracedSlice]) -> int:
        """Return the number of features that the parts have together."""
        return sum(map(self._size, self._resolved(parts)))

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
            return Layer(self._first_path.get(next(iter(modules_around(node)), ""), node.name), "")
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

    def note_sizes(self, node: fx.Node, numbers: list[int], rows: list[Parts]) -> None:
        """Record which attributes of the module that calls an operator hold the widths that it is given as numbers.

        That is the list of all of them, or the integers that are equal to one, if there are as many as such widths;
        they are then taken in the order in which they were set. Whether it is really these, the proof finds out.
        """
        path = next(iter(modules_around(node)), "")
        if path not in self._modules:
            return
        known = {name: value for name, value in vars(self._modules[path]).items() if not name.startswith("_")}
        lists = [name for name, value in known.items() if isinstance(value, list | tuple) and [*value] == numbers]
        if lists:
            self._sizes.setdefault((self._first_path[path], lists[0]), rows)
            return
        for number in dict.fromkeys(numbers):
            names = [name for name, value in known.items() if type(value) is int and value == number]
            of_this = [row for row, other in zip(rows, numbers, strict=True) if other == number]
            for name, row in zip(names, of_this, strict=True) if len(names) == len(of_this) else ():
                self._sizes.setdefault((self._first_path[path], name), [row])

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

    def unify(self, a: Parts, b: Parts, mismatch: str, stream: str = "") -> bool:
        """Merge the groups of ``a`` and ``b`` pairwise, and return whether that was possible.

        A group that meets several, one after the other, is taken apart at their borders. Where that is not possible,
        everything in both is frozen.

        Args:
            a: the parts of one tensor.
            b: the parts of another one with as many features.
            mismatch: the reason to freeze them for.
            stream: the addition that makes the groups a residual stream, if it is one.
        """
        left, right = list(self._resolved(a)), list(self._resolved(b))
        while left and right:
            if left[0].repeat != right[0].repeat:
                break
            one, other = self._size(left[0]), self._size(right[0])
            if one != other:
                row = left if one > other else right
                if not self._take_apart(row[0], min(one, other) // row[0].repeat):
                    break
            elif self._merge(left.pop(0), right.pop(0), mismatch, stream):
                pass
            else:
                return False
            left, right = list(self._resolved(left)), list(self._resolved(right))
        if left or right:
            self.freeze((*a, *b), mismatch)
            return False
        return True

    def matched(self, a: Parts, b: Parts) -> tuple[Parts, Parts]:
        """Return two rows of parts that have been unified slice by slice."""
        return self._resolved(a), self._resolved(b)

    def require_multiple(self, parts: Parts, groups: int) -> bool:
        """Keep the width a multiple of ``groups``, and return whether it is one now.

        The channels at the same place of every group then come and go together.
        """
        parts = self._resolved(parts)
        return len(parts) == 1 and parts[0].repeat == 1 and self._divide(parts[0], groups)

    def block_of(self, parts: Parts, start: int, stop: int) -> Parts | None:
        """Return the features ``start`` to ``stop`` of the parts; None where they are not whole blocks of channels.

        Where they end within a group, the group is divided into equal blocks, which have to stay equally wide.
        """
        found: list[TracedSlice] = []
        at = 0
        for part in self._resolved(parts):
            size = self._size(part)
            begin, end = max(start - at, 0), min(stop - at, size)
            at += size
            if begin >= end:
                continue
            if (begin, end) == (0, size):
                found.append(part)
                continue
            unit = math.gcd(begin, end, size)
            count = size // unit
            if unit % part.repeat or unit == part.repeat or not self._divide(part, count):
                return None
            found += [
                part._replace(block=part.block * count + i, blocks=part.blocks * count)
                for i in range(begin // unit, end // unit)
            ]
        return self.joined(tuple(found))

    def blocks_at_once(self, parts: Parts, count: int) -> Parts | None:
        """Return the channels of ``count`` equal blocks as those of one, None where the parts are not such blocks.

        Each place of the result stands for that place in every block, so all gates of the blocks have to mask it.
        """
        size = self.features(parts) // count
        blocks = [self.block_of(parts, i * size, (i + 1) * size) for i in range(count)]
        out = blocks[0]
        for block in blocks[1:]:
            if out is None or block is None or not self.unify(out, block, "its blocks have other borders"):
                return None
            out = tuple(map(zero_in_both, *self.matched(out, block)))
        return out

    def joined(self, parts: Parts) -> Parts:
        """Return the parts with all blocks of a group, one after the other, as the whole group."""
        out: list[TracedSlice] = []
        for part in parts:
            out.append(part)
            count = part.blocks
            tail = out[-count:]
            every = [(part.group, part.repeat, block, count) for block in range(count)]
            if count > 1 and [(p.group, p.repeat, p.block, p.blocks) for p in tail] == every:
                whole = functools.reduce(zero_in_both, tail)
                out[-count:] = [whole._replace(block=0, blocks=1)]
        return tuple(out)

    def freeze(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid any other width of the groups; the first reason given is the one that users see."""
        for part in self._resolved(parts):
            draft = self._drafts[part.group]
            draft.frozen = draft.frozen or reason

    def forbid_gating(self, parts: Iterable[TracedSlice], reason: str) -> None:
        """Forbid pruning the groups: a channel that is removed is not like one that is set to 0, wherever it is set."""
        for part in self._resolved(parts):
            draft = self._drafts[part.group]
            draft.ungated = draft.ungated or reason

    def add_macs(self, layer: str, spans: tuple[Parts, ...], macs: int, groups: int = 1) -> None:
        """Add ``macs`` times the widths of ``spans`` (divided by ``groups``) to the cost of an image."""
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
        sizes = [Sizes(module, name, tuple(map(self._segments, rows))) for (module, name), rows in self._sizes.items()]
        return ChannelGraph(groups, tuple(axes), tuple(terms), input_shape, widen_stream, tuple(sizes))

    def _cost_terms(self) -> list[Term]:
        """Return the terms of the MACs, with the parameters of the same layer where they span the same channels."""
        terms: dict[tuple[str, tuple[tuple[ChannelSlice, ...], ...], int], tuple[int, int]] = {}
        for layer, rows, macs, groups in self._terms:
            key = (layer, tuple(map(self._segments, rows)), groups)
            before, params = terms.get(key, (0, 0))
            terms[key] = (before + macs, params)
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

    def _segments(self, parts: Parts) -> tuple[ChannelSlice, ...]:
        resolved = self.joined(self._resolved(parts))
        return tuple(ChannelSlice(self._drafts[p.group].name, p.repeat, p.block, p.blocks) for p in resolved)

    # Groups ------------------------------------------------------------------------------------------------------

    def _group_for(self, key: str, name: str, width: int) -> int:
        """Return the group that was made for ``key``; where there is none, make one called ``name``."""
        if key not in self._group_of_key:
            taken = {draft.name for draft in self._drafts}
            if key != name and name in self._modules:  # a group of no layer must not be called like one
                name = f"<{name}>"
            while name in taken:
                name += "'"
            self._group_of_key[key] = self._new_group(name, width)
        return self._group_of_key[key]

    def _new_group(self, name: str, width: int) -> int:
        self._drafts.append(_GroupDraft(name, width))
        self._parent.append(())
        return len(self._parent) - 1

    def _size(self, part: TracedSlice) -> int:
        """Return the number of features of a resolved slice."""
        return part.repeat * self._drafts[part.group].width // part.blocks

    def _divide(self, part: TracedSlice, count: int) -> bool:
        """Divide the channels of a resolved slice into equal blocks, and return whether that is possible."""
        draft = self._drafts[part.group]
        blocks = math.lcm(draft.blocks, part.blocks * count)
        if draft.width % blocks:
            return False
        draft.blocks = blocks
        return True

    def _take_apart(self, part: TracedSlice, width: int) -> bool:
        """Make a group two groups, the first of ``width`` channels, and return whether that is possible."""
        draft = self._drafts[part.group]
        if draft.blocks > 1:
            return False
        halves = []
        for name, size in ((draft.name, width), (f"{draft.name}[{width}:]", draft.width - width)):
            number = self._new_group(name, size)
            half = self._drafts[number]
            half.gates, half.frozen, half.stream, half.ungated = (
                set(draft.gates),
                draft.frozen,
                draft.stream,
                draft.ungated,
            )
            halves.append(TracedSlice(number))
        self._parent[part.group] = tuple(halves)
        return True

    def _merge(self, a: TracedSlice, b: TracedSlice, mismatch: str, stream: str) -> bool:
        """Make the groups of two resolved slices of equal width one, with the restrictions of both.

        It has the name of the earlier group. A group that is as wide as a block of the other becomes a block of it: all
        blocks keep the channels at the same places, so that it does not matter which.

        Returns:
            Whether they are one now; if not, both are frozen.
        """
        a, b = sorted((a, b))
        kept, other = self._drafts[a.group], self._drafts[b.group]
        if a.group != b.group and kept.width < other.width:
            a, b, kept, other = b, a, other, kept
        if a.group == b.group:
            if a.blocks == b.blocks:  # two blocks are as wide as each other, and have the same gates
                return True
            self.freeze((a,), mismatch)
            return False
        kept.stream = kept.stream or other.stream or stream
        times, rest = divmod(kept.width, other.width)
        if rest or a.blocks != b.blocks * times:
            self.freeze((a, b), mismatch)
            return False
        if not self._divide(TracedSlice(a.group), times * other.blocks):
            reason = (
                f"its grouped convolutions need a multiple of {math.lcm(kept.blocks, times * other.blocks)} channels"
            )
            self.freeze((a, b), reason)
            if times > 1:
                return False
            kept.blocks = 1
        self._parent[b.group] = (TracedSlice(a.group, blocks=times),)
        kept.gates |= other.gates
        kept.frozen = kept.frozen or other.frozen
        kept.ungated = kept.ungated or other.ungated
        return True

    def _resolved(self, parts: Iterable[TracedSlice]) -> Parts:
        """Return slices as those of the groups that their groups have been merged into, or taken apart into."""
        out: list[TracedSlice] = []
        for part in parts:
            parents = self._parent[part.group]
            if not parents:
                out.append(part)
            for parent in parents:
                block = parent.block * part.blocks + part.block
                moved = part._replace(group=parent.group, block=block, blocks=parent.blocks * part.blocks)
                out += self._resolved((moved,))
        return tuple(out)


def zero_in_both(a: TracedSlice, b: TracedSlice) -> TracedSlice:
    """Return the slice of a sum, which is 0 where both terms are: all gates of both have to mask a channel."""
    ungated = a.ungated or b.ungated
    gates = (a.gates or a.spare) | (b.gates or b.spare)
    if not ungated:
        return a._replace(gates=gates)
    reachable = all(part.spare or not part.ungated for part in (a, b))
    return a._replace(gates=frozenset(), ungated=ungated, spare=gates if reachable else frozenset())


def zero_in_one(a: TracedSlice, b: TracedSlice) -> TracedSlice:
    """Return the slice of a product, which is 0 where one of the factors is: the first that has a gate gates it."""
    if not a.ungated or (b.ungated and not b.spare):
        return a
    return b if not b.ungated or not a.spare else a


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
