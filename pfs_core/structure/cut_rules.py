"""Which widths a cut may lead to.

Where a runtime computes channels in blocks (:mod:`pfs_core.structure.blocks`), each group gets the fast width nearest
to the number of gates that it keeps: a block that is at least half used is filled, which costs no time, and one that is
hardly used is not bought. A residual branch is left out where most of its first blocks would not be used, and is whole
blocks wide otherwise.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pfs_core.channels import ChannelGraph
from pfs_core.channels.elements import Branch, ChannelGroup
from pfs_core.structure.blocks import fast_widths


@dataclass(frozen=True)
class CutRules:
    """The rules of a cut; without any it is the paper's, to any width.

    Attributes:
        channel_multiple: kept widths are multiples of this, but never more than the expanded width.
        floor: the fraction of its unexpanded width that every prunable group keeps at least.
        block: the number of channels that the runtime computes at once; 1 is the paper's cut.
        branches: whether residual branches may be left out, where there are blocks and no floor.
    """

    channel_multiple: int = 1
    floor: float = 0.0
    block: int = 1
    branches: bool = True

    def least(self, graph: ChannelGraph, expanded: Mapping[str, int]) -> dict[str, int]:
        """Return the smallest widths that a cut may lead to; groups that are not pruned keep their expanded width.

        A prunable group keeps at least the smallest of its :meth:`candidates`, and nothing in a residual branch that
        can be left out.
        """
        widths = dict(expanded)
        for group in graph.prunable():
            widths[group.name] = self.candidates(group, expanded[group.name])[0]
        for branch in self.optional_branches(graph):
            widths |= dict.fromkeys(branch.groups, 0)
        return widths

    def optional_branches(self, graph: ChannelGraph) -> tuple[Branch, ...]:
        """Return the residual branches that may be left out; with a floor, and in the paper's cut, there are none."""
        return graph.branches if self.branches and self.block > 1 and not self.floor else ()

    def candidates(self, group: ChannelGroup, widest: int) -> list[int]:
        """Return the widths that a group may be cut to, rising.

        They are fast in the runtime, at least ``floor`` times the group's unexpanded width, and multiples of
        ``channel_multiple`` and of the group's own blocks.

        Args:
            group: a prunable group.
            widest: its expanded width.
        """
        step = self._step(group)
        # 0.55 * 100 is 55.00000000000001 in floating point, which must not ask for 56.
        least = max(1, math.ceil(self.floor * group.width / step - 1e-9)) * step
        return [width for width in fast_widths(widest, self.block, step) if width >= least] or [widest]

    def width_by_count(self, group: ChannelGroup, widest: int, candidates: Sequence[int]) -> list[int]:
        """Return the candidate that a group gets for each number of its gates that is kept, from none to all."""
        step = self._step(group)
        wanted = np.arange(0, widest + 1, group.per_gate) // step * step
        # A wider candidate is chosen from the middle between two on: half of its block is used then.
        middles = [(low + high) / 2 for low, high in itertools.pairwise(candidates)]
        return [candidates[place] for place in np.searchsorted(middles, wanted, side="right")]

    def _step(self, group: ChannelGroup) -> int:
        return math.lcm(self.channel_multiple, group.per_gate)
