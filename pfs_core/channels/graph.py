"""The result of a trace: channel groups, and the network's cost as a polynomial in their widths."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pfs_core.channels.elements import Axis, Branch, ChannelGroup, Cost, Role, Sizes, Term
from pfs_core.errors import UserError


class Refuted(NamedTuple):
    """What a channel graph says of a network and does not hold, ``{group or branch: reason}``.

    Attributes:
        frozen: groups that must stay as they are.
        no_wider: groups that can lose channels but not get more, where a number in the network's code is their width.
        needed: branches that cannot be left out; None where that was not tried, so that all of them stay.
    """

    frozen: Mapping[str, str] = {}
    no_wider: Mapping[str, str] = {}
    needed: Mapping[str, str] | None = {}

    def corrected(self, graph: "ChannelGraph") -> "ChannelGraph":
        """Return the graph without what does not hold."""
        out = graph.frozen(self.frozen).not_widened(self.no_wider)
        branches = [b for b in out.branches if self.needed is not None and b.name not in self.needed]
        return replace(out, branches=tuple(branches), refuted=self)


@dataclass(frozen=True, slots=True)
class ChannelGraph:
    """The channel groups of one network, in forward order, and its cost in closed form.

    Attributes:
        groups: the channel groups.
        axes: every side of a module that has channels on it.
        terms: the summands of the cost.
        input_shape: channels, height and width of the image that was traced.
        widen_stream: whether an expansion widens residual streams as well, as the network declares.
        sizes: attributes in which modules have widths as numbers.
        branches: the residual branches that can be left out.
        refuted: what it said of the network at first and does not say any more.
    """

    groups: tuple[ChannelGroup, ...]
    axes: tuple[Axis, ...]
    terms: tuple[Term, ...]
    input_shape: tuple[int, int, int]
    widen_stream: bool = False
    sizes: tuple[Sizes, ...] = ()
    branches: tuple[Branch, ...] = ()
    refuted: Refuted = Refuted()

    def group(self, name: str) -> ChannelGroup:
        """Return the group of that name.

        Raises:
            KeyError: there is no such group.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def prunable(self) -> list[ChannelGroup]:
        """Return the groups that may lose channels, in forward order."""
        return [group for group in self.groups if group.prunable]

    def members(self, name: str) -> list[tuple[str, Role]]:
        """Return ``(module, role)`` of every axis that the group is on, in forward order."""
        return [(a.module, a.role) for a in self.axes if any(s.group == name for s in a.segments)]

    def gated_by_output(self) -> set[str]:
        """Return the layers whose output a gate multiplies, even where they have scales."""
        return {axis.module for axis in self.axes if axis.role == "gate"}

    def widths(self) -> dict[str, int]:
        """Return ``{group: width}`` as traced."""
        return {group.name: group.width for group in self.groups}

    def with_widths(self, widths: Mapping[str, int]) -> "ChannelGraph":
        """Return the graph of the network resized to ``widths``, without tracing it.

        Raises:
            UserError: as :meth:`check`.
        """
        self.check(widths)
        return replace(self, groups=tuple(replace(g, width=widths[g.name]) for g in self.groups))

    def frozen(self, reasons: Mapping[str, str]) -> "ChannelGraph":
        """Return the graph with the groups of ``reasons``, ``{group: reason}``, left as they are."""

        def freeze(group: ChannelGroup) -> ChannelGroup:
            if group.name not in reasons:
                return group
            reason = reasons[group.name]
            return replace(group, prunable=False, resizable=False, reason=reason, gates=(), rectified=False)

        rest = [b._replace(groups=tuple(name for name in b.groups if name not in reasons)) for b in self.branches]
        return replace(self, groups=tuple(map(freeze, self.groups)), branches=tuple(b for b in rest if b.groups))

    def not_widened(self, names: Container[str]) -> "ChannelGraph":
        """Return the graph in which these groups may lose channels, but not get more."""
        groups = [replace(group, widens=False) if group.name in names else group for group in self.groups]
        return replace(self, groups=tuple(groups))

    def expanded(self, factor: float, stream: float | None = None) -> dict[str, int]:
        """Return the widths with every prunable group times ``factor`` and every residual stream times ``stream``.

        Widths are rounded to what the groups allow; groups that cannot be pruned, or not be widened, keep theirs.

        Args:
            factor: the factor on prunable groups.
            stream: the factor on residual streams. None stands for ``factor`` where the stream is pruned too or the
                network declares ``widen_stream``, and for 1 elsewhere.
        """
        widths = {}
        for group in self.groups:
            times = 1.0
            if group.stream and group.resizable and stream is not None:
                times = stream
            elif group.prunable or (group.stream and group.resizable and self.widen_stream):
                times = factor
            times = times if group.widens else min(times, 1.0)
            widths[group.name] = max(1, round(group.gate_count * times)) * group.per_gate
        return widths

    def cost(self, widths: Mapping[str, int] | None = None) -> Cost:
        """Return the cost at ``widths`` (as traced if None), without running the network.

        Raises:
            UserError: ``widths`` does not name exactly this graph's groups, or breaks a fixed width.

        >>> from pfs_core.channels import trace
        >>> from pfs_core.models import build_model
        >>> graph = trace(build_model("resnet20"), (3, 32, 32))
        >>> graph.cost(graph.expanded(1.25))
        Cost(macs=63632160, params=424910)
        """
        if widths is None:
            widths = self.widths()
        self.check(widths)
        macs, params = 0, -sum(branch.params for branch in self.left_out(widths))
        for term in self.terms_at(widths):
            factor = term.factor(widths)
            macs += term.macs * factor
            params += term.params * factor
        return Cost(macs, params)

    def left_out(self, widths: Mapping[str, int]) -> list[Branch]:
        """Return the branches that are left out at ``widths``: their groups have the width 0."""
        return [branch for branch in self.branches if not widths[branch.groups[0]]]

    def terms_at(self, widths: Mapping[str, int]) -> list[Term]:
        """Return the summands of the cost at ``widths``: those of branches that are left out are not among them."""
        gone = {layer for branch in self.left_out(widths) for layer in branch.layers}
        return [term for term in self.terms if term.module not in gone]

    def narrowest(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Return ``widths`` with the fewest channels that can be built in place of 0, where branches are left out."""
        return {group.name: widths[group.name] or group.per_gate for group in self.groups}

    def prunable_macs(self) -> int:
        """Return the MACs of the layers whose input or output channels can be pruned."""
        widths = self.widths()
        prunable = {group.name for group in self.prunable()}
        touched = [t for t in self.terms if any(s.group in prunable for span in t.spans for s in span)]
        return sum(t.macs * t.factor(widths) for t in touched)

    def summary(self) -> str:
        """Return a sentence that says how much of the network can be pruned."""
        macs, prunable = self.cost().macs, len(self.prunable())
        return (
            f"{prunable} of {len(self.groups)} channel groups can be pruned; "
            f"layers that read or write them do {self.prunable_macs() / max(macs, 1):.1%} of the {macs:,} MACs"
        )

    def check(self, widths: Mapping[str, int]) -> None:
        """Raise UserError unless ``widths`` has one legal width for every group.

        The width 0 is legal for all groups of a branch together.
        """
        known = {group.name for group in self.groups}
        branches = {name: branch for branch in self.branches for name in branch.groups}
        for name, width in widths.items():
            if name not in known:
                raise UserError(f"unknown channel group {name!r}; known: {', '.join(self.widths())}")
            if not isinstance(width, int) or width < (name not in branches):
                raise UserError(f"width of channel group {name!r} must be a positive number (got {width!r})")
            together = branches[name].groups if name in branches else ()
            if any(bool(widths.get(other, width)) != bool(width) for other in together):
                raise UserError(
                    f"the channel groups {', '.join(together)} are one residual branch, which is left out as a whole: "
                    "either all of them have the width 0 or none has"
                )
        for group in self.groups:
            given = widths.get(group.name)
            if given is None:
                raise UserError(f"no width is given for channel group {group.name!r}")
            if not group.resizable and given != group.width:
                raise UserError(
                    f"channel group {group.name!r} must keep width {group.width} (got {given}): {group.reason}"
                )
            if not group.widens and given > group.width:
                raise UserError(f"channel group {group.name!r} must not be wider than {group.width} (got {given})")
            if given % group.per_gate:
                raise UserError(
                    f"width of channel group {group.name!r} must be a multiple of {group.per_gate} (got {given})"
                )
