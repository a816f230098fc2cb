"""From a model to its channel graph, by torch.fx.

The walk visits the traced operations in forward order and carries, for every tensor, which channel group its
dimension 1 belongs to. What an operation does to groups is in the tables of :mod:`pfs_core.channels.operators`;
an operation that is in no table freezes the groups that pass through it, and the group's ``reason`` says so.
"""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.channels.graph import ChannelGraph, ChannelGroup, Member, Term
from pfs_core.channels.operators import FUNCTIONS, METHODS, MODULES, shape_of
from pfs_core.errors import UserError

Policy = Literal["inner", "all"]
_BATCH = 2


def trace(model: nn.Module, input_shape: tuple[int, int, int], policy: Policy = "inner") -> ChannelGraph:
    """The channel graph of ``model``.

    Args:
        model: any CNN that torch.fx can trace; it is not changed and no forward pass is computed.
        input_shape: channels, height and width of one image.
        policy: ``inner`` leaves groups that are joined by an addition (residual streams) alone; ``all`` prunes them
            too, with one gate vector shared by every layer that writes the stream.

    Raises:
        UserError: the model cannot be traced, or cannot process such an image.
    """
    on_meta = copy.deepcopy(model).to("meta").eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    images = torch.empty(_BATCH, *input_shape, device="meta", dtype=dtype)
    flops = FlopCounterMode(display=False)
    shape = "x".join(map(str, input_shape))
    with _named(f"{type(model).__name__} cannot process {shape} images"), flops:
        on_meta(images)
    with _named(f"{type(model).__name__} cannot be traced"):
        traced = fx.symbolic_trace(on_meta)
    ShapeProp(traced).propagate(images)
    walk = Walk(traced, macs=flops.get_total_flops() // (2 * _BATCH))
    for node in traced.graph.nodes:
        walk.visit(node)
    return walk.finish(input_shape, policy)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Turn anything that a user's model raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise UserError(f"{what}: {reason}") from None


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of one tensor's dimension 1.

    ``gates`` are the BatchNorms a masked channel would be set to 0 by; ``ungated`` says why there is none (a channel
    masked upstream would not be 0 here). ``repeat`` > 1 after a flatten: neighbouring features per channel.
    """

    group: int
    repeat: int = 1
    gates: frozenset[str] = frozenset()
    ungated: str = ""

    def lose_gates(self, reason: str) -> "Channels":
        """These channels where a masked one is no longer 0."""
        return replace(self, gates=frozenset(), ungated=reason)


class _Draft:
    """A group under construction."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.members: dict[Member, None] = {}
        self.gates: set[str] = set()
        self.frozen = ""
        self.joined = ""
        self.ungated = ""


class Walk:
    """One pass over the traced graph: the state that operator handlers read and write."""

    def __init__(self, traced: fx.GraphModule, macs: int) -> None:
        self.modules = dict(traced.named_modules())
        self._total_macs = macs
        self._total_params = sum(p.numel() for p in traced.parameters())
        self._values: dict[fx.Node, Channels] = {}
        self._drafts: list[_Draft] = []
        self._root: list[int] = []
        self._written: dict[str, int] = {}
        self._read: dict[str, Channels] = {}
        self._terms: list[tuple[str, tuple[int, ...], int, int]] = []
        self._counted: set[str] = set()

    # What handlers call ------------------------------------------------------------------------------------------

    def channels(self, node: Any) -> Channels | None:
        """The channels of a node's output; None if it is no tensor with channels."""
        return self._values.get(node) if isinstance(node, fx.Node) else None

    def module(self, node: fx.Node) -> Any:
        """The module a ``call_module`` node calls."""
        return self.modules[str(node.target)]

    def writes(self, node: fx.Node, width: int) -> Channels:
        """A group of ``width`` channels that this node's module writes; the same one if it is called again."""
        name = str(node.target)
        if name not in self._written:
            self._written[name] = self._new(name, width)
        group = self._written[name]
        self._draft(group).members[Member(name, "writes")] = None
        return Channels(group, ungated=f"no BatchNorm between {name} and the next layer")

    def reads(self, node: fx.Node, x: Channels) -> None:
        """The node's module mixes the channels of ``x``."""
        name = str(node.target)
        self._same_input(name, x)
        draft = self._draft(x.group)
        draft.members[Member(name, "reads", x.repeat)] = None
        draft.gates |= x.gates
        draft.ungated = draft.ungated or x.ungated

    def member(self, node: fx.Node, x: Channels, role: Literal["depthwise", "norm"]) -> None:
        """The shape of this node's module follows the group of ``x``."""
        name = str(node.target)
        self._same_input(name, x)
        self._draft(x.group).members[Member(name, role)] = None

    def _same_input(self, name: str, x: Channels) -> None:
        """A module that is called again reads the same channels as before."""
        before = self._read.setdefault(name, x)
        if (self._draft(before.group).width, before.repeat) == (self._draft(x.group).width, x.repeat):
            self.join(before.group, x.group)
            return
        for channels in (before, x):
            self.freeze(channels, f"{name} reads it in two ways")

    def count(self, node: fx.Node, groups: tuple[Channels, ...], macs: int, params: int) -> None:
        """Add ``macs`` and ``params`` times the widths of ``groups`` to the cost."""
        self._terms.append((str(node.target), tuple(g.group for g in groups), macs, params))

    def first_call(self, node: fx.Node) -> bool:
        """Whether the node's module has not been called before (its parameters count once)."""
        first = str(node.target) not in self._counted
        self._counted.add(str(node.target))
        return first

    def join(self, a: int, b: int, place: str = "") -> int:
        """Make two groups one; ``place`` is the addition that joins them."""
        keep, gone = sorted((self._find(a), self._find(b)))
        kept, other = self._drafts[keep], self._drafts[gone]
        kept.joined = kept.joined or other.joined or place
        if keep != gone:
            assert kept.width == other.width, f"joining {kept.name} ({kept.width}) and {other.name} ({other.width})"
            self._root[gone] = keep
            kept.members |= other.members
            kept.gates |= other.gates
            kept.frozen = kept.frozen or other.frozen
            kept.ungated = kept.ungated or other.ungated
        return keep

    def freeze(self, x: Channels, reason: str) -> None:
        """The group of ``x`` must keep its width."""
        draft = self._draft(x.group)
        draft.frozen = draft.frozen or reason

    def opaque(self, node: fx.Node, what: str) -> Channels | None:
        """An operation that is not understood: freeze what goes in, and what comes out."""
        for x in map(self.channels, node.all_input_nodes):
            if x is not None:
                self.freeze(x, f"passes through {what}")
        if len(shape_of(node)) < 2:
            return None
        out = Channels(self._new(node.name, shape_of(node)[1]))
        self.freeze(out, f"comes out of {what}")
        return out

    # The pass ----------------------------------------------------------------------------------------------------

    def visit(self, node: fx.Node) -> None:
        """Work out the channels of one node's output."""
        value: Channels | None
        if node.op == "placeholder":
            if len(shape_of(node)) < 2:
                return
            value = Channels(self._new("input", shape_of(node)[1]))
            self.freeze(value, "the network's input")
        elif node.op == "output":
            for x in map(self.channels, node.all_input_nodes):
                if x is not None:
                    self.freeze(x, "the network's output")
            return
        else:
            value = self._call(node)
        if value is not None:
            self._values[node] = value

    def _call(self, node: fx.Node) -> Channels | None:
        if node.op == "call_module":
            handler, what = MODULES.get(type(self.module(node))), type(self.module(node)).__name__
        elif node.op == "call_method":
            handler, what = METHODS.get(str(node.target)), f".{node.target}()"
        elif node.op == "call_function":
            handler, what = FUNCTIONS.get(node.target), getattr(node.target, "__name__", str(node.target))
        else:
            handler, what = None, "a parameter used directly"
        named = [a for a in node.kwargs.values() if isinstance(a, fx.Node)]  # handlers know arguments by position
        value = handler(self, node) if handler and node.args and not named else NotImplemented
        if value is NotImplemented:
            return self.opaque(node, f"{what} ({node.name}), which is not supported")
        if node.op == "call_method" and str(node.target).endswith("_") and value is not None:
            self._values[node.all_input_nodes[0]] = value  # in place: who reads the argument later reads this
        return value

    def finish(self, input_shape: tuple[int, int, int], policy: Policy) -> ChannelGraph:
        """The graph of everything visited."""
        roots = [i for i in range(len(self._drafts)) if self._find(i) == i]
        groups = tuple(_group(self._drafts[i], policy) for i in roots)
        terms = []
        for module, ids, macs, params in self._terms:
            terms.append(Term(module, tuple(self._drafts[self._find(i)].name for i in ids), macs, params))
        width = {g.name: g.width for g in groups}
        counted = sum(t.params * math.prod(width[g] for g in t.groups) for t in terms)
        macs = sum(t.macs * math.prod(width[g] for g in t.groups) for t in terms)
        terms.append(Term("", (), self._total_macs - macs, self._total_params - counted))
        return ChannelGraph(groups, tuple(terms), input_shape)

    def _new(self, name: str, width: int) -> int:
        taken = name in self.modules and name not in self._counted
        self._drafts.append(_Draft(f"<{name}>" if taken else name, width))
        self._root.append(len(self._root))
        return len(self._root) - 1

    def _find(self, group: int) -> int:
        while self._root[group] != group:
            group = self._root[group]
        return group

    def _draft(self, group: int) -> _Draft:
        return self._drafts[self._find(group)]


def _group(draft: _Draft, policy: Policy) -> ChannelGroup:
    reason = draft.frozen
    if not reason and draft.joined and policy == "inner":
        reason = f"residual stream, joined at {draft.joined} (policy all prunes it)"
    if not reason and (draft.ungated or not draft.gates):
        reason = f"cannot be gated: {draft.ungated or 'nothing reads it'}"
    return ChannelGroup(
        name=draft.name,
        width=draft.width,
        prunable=not reason,
        resizable=not draft.frozen,
        reason=reason,
        gates=tuple(sorted(draft.gates)) if not reason else (),
        members=tuple(draft.members),
    )
