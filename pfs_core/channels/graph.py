"""What a trace finds: channel groups, and the network's cost as a polynomial in their widths.

One multiply-accumulate of a convolution or linear layer is one MAC; what other operations compute is counted only
where PyTorch's own counter counts it (matrix products of attention).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pfs_core.errors import UserError

Role = Literal["writes", "reads", "depthwise", "norm", "scale"]


class Cost(NamedTuple):
    """MACs of one image's forward pass, and the number of parameters."""

    macs: int
    params: int


class ChannelSlice(NamedTuple):
    """A stretch of a tensor's features: the channels of ``group``, each ``repeat`` times side by side."""

    group: str
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of a module, and the channels that it spans: several groups one after the other behind a concat.

    ``writes``: its outputs; ``reads``: its inputs; ``depthwise``: the inputs that a depthwise convolution keeps
    apart; ``norm`` and ``scale``: a normalisation, or another layer with one parameter a channel.
    """

    module: str
    role: Role
    segments: tuple[ChannelSlice, ...]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that must stay equally wide wherever they appear.

    Attributes:
        name: the first layer that writes the channels.
        width: channels as traced.
        prunable: whether channels may be removed; ``reason`` says why not, or is empty.
        resizable: whether the width may change at all.
        stream: whether it is a residual stream: joined by an addition, or named in the network's ``stream_layers``.
        blocks: the width is a multiple of this. Where a grouped convolution has G groups, the channels at the same
            place of each group come and go together, so that a gate is that of G channels.
        gates: the layers whose output is multiplied by the gate: the last ones before the channels are mixed.
            A channel that is 0 behind all of them has the effect of a channel that is absent.
        rectified: whether nothing but rectifiers reads what the gates let through. A gate that is 0 then has no
            gradient, since the derivative of ReLU at 0 is 0.
    """

    name: str
    width: int
    prunable: bool
    resizable: bool
    stream: bool
    reason: str
    blocks: int
    gates: tuple[str, ...]
    rectified: bool = False

    @property
    def gate_count(self) -> int:
        """Gates of the group: its width, except behind grouped convolutions."""
        return self.width // self.blocks


@dataclass(frozen=True, slots=True)
class Term:
    """``macs`` and ``params`` times the width of every span in ``spans``, divided by a convolution's ``groups``."""

    module: str
    spans: tuple[tuple[ChannelSlice, ...], ...]
    macs: int
    params: int
    groups: int = 1

    def factor(self, widths: Mapping[str, int]) -> int:
        """What ``macs`` and ``params`` are multiplied by."""
        return math.prod(features(span, widths) for span in self.spans) // self.groups


def features(segments: Iterable[ChannelSlice], widths: Mapping[str, int]) -> int:
    """How many features the segments are at ``widths``."""
    return sum(repeat * widths[group] for group, repeat in segments)


@dataclass(frozen=True, slots=True)
class ChannelGraph:
    """The channel groups of one network, in forward order, and its cost in closed form.

    ``widen_stream`` says whether an expansion widens residual streams as well, as the network declares.
    """

    groups: tuple[ChannelGroup, ...]
    axes: tuple[Axis, ...]
    terms: tuple[Term, ...]
    input_shape: tuple[int, int, int]
    widen_stream: bool = False

    def group(self, name: str) -> ChannelGroup:
        """The group of that name (KeyError if there is none)."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def prunable(self) -> list[ChannelGroup]:
        """The groups that may lose channels, in forward order."""
        return [group for group in self.groups if group.prunable]

    def members(self, name: str) -> list[tuple[str, Role]]:
        """``(module, role)`` of every axis that the group is on, in forward order."""
        return [(a.module, a.role) for a in self.axes if any(s.group == name for s in a.segments)]

    def widths(self) -> dict[str, int]:
        """``{group: width}`` as traced."""
        return {group.name: group.width for group in self.groups}

    def with_widths(self, widths: Mapping[str, int]) -> "ChannelGraph":
        """The graph of the network resized to ``widths``; UserError as :meth:`check`."""
        self.check(widths)
        return replace(self, groups=tuple(replace(g, width=widths[g.name]) for g in self.groups))

    def expanded(self, factor: float, stream: float | None = None) -> dict[str, int]:
        """Widths with every prunable group times ``factor`` and every residual stream times ``stream``.

        ``stream`` is by default ``factor`` where the stream is pruned too or the network declares ``widen_stream``,
        else 1. Widths are rounded to what the groups allow; groups that cannot be pruned keep theirs.
        """
        widths = {}
        for group in self.groups:
            times = 1.0
            if group.stream and group.resizable and stream is not None:
                times = stream
            elif group.prunable or (group.stream and group.resizable and self.widen_stream):
                times = factor
            widths[group.name] = max(1, round(group.gate_count * times)) * group.blocks
        return widths

    def cost(self, widths: Mapping[str, int] | None = None) -> Cost:
        """Cost at ``widths`` (as traced if None), without running the network.

        Raises:
            UserError: ``widths`` does not name exactly this graph's groups, or breaks a fixed width.
        """
        if widths is None:
            widths = self.widths()
        self.check(widths)
        macs = params = 0
        for term in self.terms:
            factor = term.factor(widths)
            macs += term.macs * factor
            params += term.params * factor
        return Cost(macs, params)

    def prunable_macs(self) -> int:
        """MACs of the layers whose input or output channels can be pruned."""
        widths, prunable = self.widths(), {group.name for group in self.prunable()}
        touched = [t for t in self.terms if any(s.group in prunable for span in t.spans for s in span)]
        return sum(t.macs * t.factor(widths) for t in touched)

    def summary(self) -> str:
        """How much of the network can be pruned, in a sentence."""
        macs, prunable = self.cost().macs, len(self.prunable())
        return (
            f"{prunable} of {len(self.groups)} channel groups can be pruned; "
            f"layers that read or write them do {self.prunable_macs() / macs:.1%} of the {macs:,} MACs"
        )

    def check(self, widths: Mapping[str, int]) -> None:
        """Raise UserError unless ``widths`` has one legal width a group."""
        known = {group.name for group in self.groups}
        for name, width in widths.items():
            if name not in known:
                raise UserError(f"unknown channel group {name!r}; known: {', '.join(self.widths())}")
            if not isinstance(width, int) or width < 1:
                raise UserError(f"width of channel group {name!r} must be a positive number (got {width!r})")
        for group in self.groups:
            given = widths.get(group.name)
            if given is None:
                raise UserError(f"no width is given for channel group {group.name!r}")
            if not group.resizable and given != group.width:
                raise UserError(
                    f"channel group {group.name!r} must keep width {group.width} (got {given}): {group.reason}"
                )
            if given % group.blocks:
                raise UserError(
                    f"width of channel group {group.name!r} must be a multiple of {group.blocks} (got {given})"
                )
