"""What a trace finds: channel groups, and the network's cost as a polynomial in their widths.

One multiply-accumulate of a convolution or linear layer is one MAC; nothing else is counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pfs_core.errors import UserError


class Cost(NamedTuple):
    """MACs of one image's forward pass, and the number of parameters."""

    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Member:
    """A module whose shape follows the width of a group.

    ``writes``: its output channels are the group; ``reads``: its input channels (features, for a linear layer: each
    channel stands ``repeat`` times side by side after a flatten); ``depthwise``: both; ``norm``: a BatchNorm over them.
    """

    module: str
    role: Literal["writes", "reads", "depthwise", "norm"]
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that must stay equally wide across all members.

    ``gates`` names the BatchNorms whose scale gates the group: the last ones before its channels are mixed. Setting
    a channel's scale and shift to 0 in all of them has the effect of removing the channel. ``reason`` says why a
    group is not prunable, or is empty. A group that is not ``resizable`` keeps the width it was traced with.
    """

    name: str
    width: int
    prunable: bool
    resizable: bool
    reason: str
    gates: tuple[str, ...]
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """``macs`` and ``params`` times the product of the widths of ``groups`` (none, one or two of them)."""

    module: str
    groups: tuple[str, ...]
    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class ChannelGraph:
    """The channel groups of one network, in forward order, and its cost in closed form."""

    groups: tuple[ChannelGroup, ...]
    terms: tuple[Term, ...]
    input_shape: tuple[int, int, int]

    def group(self, name: str) -> ChannelGroup:
        """The group of that name (KeyError if there is none)."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def prunable(self) -> list[ChannelGroup]:
        """The groups that may lose channels, in forward order."""
        return [group for group in self.groups if group.prunable]

    def widths(self) -> dict[str, int]:
        """``{group: width}`` as traced."""
        return {group.name: group.width for group in self.groups}

    def expanded(self, factor: float) -> dict[str, int]:
        """Widths with every resizable group times ``factor``, rounded."""
        return {g.name: round(g.width * factor) if g.resizable else g.width for g in self.groups}

    def cost(self, widths: Mapping[str, int] | None = None) -> Cost:
        """Cost at ``widths`` (as traced if None), without running the network.

        Raises:
            UserError: ``widths`` does not name exactly this graph's groups, or breaks a fixed width.
        """
        if widths is None:
            widths = self.widths()
        self.check(widths)
        macs = sum(term.macs * math.prod(widths[g] for g in term.groups) for term in self.terms)
        params = sum(term.params * math.prod(widths[g] for g in term.groups) for term in self.terms)
        return Cost(macs, params)

    def check(self, widths: Mapping[str, int]) -> None:
        """Raise UserError unless ``widths`` has one positive number a group and leaves the fixed groups alone."""
        known = self.widths()
        for name, width in widths.items():
            if name not in known:
                raise UserError(f"unknown channel group {name!r}; known: {', '.join(known)}")
            if not isinstance(width, int) or width < 1:
                raise UserError(f"width of channel group {name!r} must be a positive number (got {width!r})")
        for group in self.groups:
            if group.name not in widths:
                raise UserError(f"no width is given for channel group {group.name!r}")
            if not group.resizable and widths[group.name] != group.width:
                given = widths[group.name]
                raise UserError(
                    f"channel group {group.name!r} must keep width {group.width} (got {given}): {group.reason}"
                )
