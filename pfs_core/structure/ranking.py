"""All gates of a network in falling order, and what a cut keeps of them."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.structure.cut_rules import CutRules

Cost = Callable[[Mapping[str, int]], float]
"""The cost of widths. It must not fall when a width grows."""


class Ranking:
    """All gates of a network in falling order, and the widths that each prefix of them leads to.

    Args:
        graph: the channel graph of the unexpanded network.
        gates: the gates of every prunable group, float [expanded gates].
        expanded: the width of every group before the cut.
        rules: which widths the cut may lead to.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        gates: Mapping[str, Tensor],
        expanded: Mapping[str, int],
        rules: CutRules,
    ) -> None:
        groups = graph.prunable()
        self.values, self._owners = ranked_channels({group.name: gates[group.name] for group in groups})
        self._least = rules.least(graph, expanded)
        self._together = {name: branch.groups for branch in rules.optional_branches(graph) for name in branch.groups}
        candidates = {group.name: rules.candidates(group, expanded[group.name]) for group in groups}
        self._halves: dict[str, int] = {}
        for name in self._together:
            whole = [width for width in candidates[name] if width >= rules.block] or candidates[name][-1:]
            self._halves[name] = max([width for width in candidates[name] if 2 * width <= whole[0]], default=whole[0])
            candidates[name] = whole
        self._first = {name: widths[0] for name, widths in candidates.items()}
        self._per_gate = {group.name: group.per_gate for group in groups}
        self._tables = {
            group.name: rules.width_by_count(group, expanded[group.name], candidates[group.name]) for group in groups
        }

    def widths(self, kept: int) -> dict[str, int]:
        """Return the width of every group where the ``kept`` largest gates are kept."""
        return self._widths(self._counts(kept))

    def cut(self, cost: Cost, limit: float, low: int = 0, fill: bool = False) -> tuple[int, dict[str, int]]:
        """Return the length of the longest prefix that costs at most ``limit``, and the widths of the cut.

        They are those of the prefix, and of later gates as far as each is within the limit: of the next one, if it
        brings back a residual branch half a block wide, and with ``fill`` of all. Once a gate of a group does not fit,
        the later gates of that group are not tried. The other arguments are those of :meth:`longest`.
        """
        kept = self.longest(cost, limit, low)
        later = self._owners[kept : None if fill else kept + 1].tolist()
        return kept, self._with_later(kept, later, cost, limit)

    def longest(self, cost: Cost, limit: float, low: int = 0) -> int:
        """Return the number of gates of the longest prefix that costs at most ``limit``.

        Bisection is exact: a longer prefix makes no group narrower, and the cost does not fall when a width grows, so
        the prefixes within the limit are all those up to some length.

        Args:
            cost: the cost of widths.
            limit: the cost that is allowed.
            low: the length of a prefix that is known to be within the limit.
        """
        high = len(self.values)
        while low < high:
            middle = (low + high + 1) // 2
            if cost(self.widths(middle)) <= limit:
                low = middle
            else:
                high = middle - 1
        return low

    def _with_later(self, kept: int, later: Iterable[int], cost: Cost, limit: float) -> dict[str, int]:
        """Return the widths of a prefix and of what fits of the gates after it, whose groups ``later`` has."""
        counts, names, full = self._counts(kept), list(self._tables), set()
        widths = self._widths(counts)
        for name in (names[owner] for owner in later):
            if name in full:
                continue
            counts[name] += 1
            if self._width(name, counts) <= widths[name]:
                continue  # it is within a block that is kept, or does not bring back its branch
            back = () if widths[name] else self._together[name]
            wider = widths | {group: self._width(group, counts) for group in (name, *back)}
            if cost(wider) <= limit:
                widths = wider
                continue
            counts[name] -= 1
            half = widths | {group: self._halves[group] for group in back}
            if back and cost(half) <= limit:
                widths = half
            else:
                full.add(name)
        return widths

    def _counts(self, kept: int) -> dict[str, int]:
        """Return the number of gates of each group that is kept where the ``kept`` largest of all are."""
        counts = np.bincount(self._owners[:kept], minlength=len(self._tables)).tolist()
        return dict(zip(self._tables, counts, strict=True))

    def _widths(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the width of every group where so many gates of each are kept."""
        return self._least | {name: self._width(name, counts) for name in self._tables}

    def _width(self, name: str, counts: Mapping[str, int]) -> int:
        """Return the width of one group where so many gates of each are kept."""
        together = self._together.get(name, ())
        used = sum(counts[other] * self._per_gate[other] for other in together)
        left_out = 2 * used < sum(self._first[other] for other in together)
        return 0 if left_out else self._tables[name][counts[name]]


def ranked_channels(gates: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Rank all gates of a network, largest first.

    Equal gates are ranked by their position in their own group as a fraction of its size, so that a tie between groups
    is shared evenly: of groups with 2 and 4 equal gates, each prefix holds about the same fraction.

    Args:
        gates: the gates of every group, float [gates].

    Returns:
        The gates in falling order, float64 [n], and for each one the position of its group in ``gates``, int64 [n].

    >>> import torch
    >>> values, owners = ranked_channels({"a": torch.tensor([0.2, 0.9]), "b": torch.tensor([1.0, 0.9, 0.9, 0.9])})
    >>> values.round(3).tolist(), owners.tolist()
    ([1.0, 0.9, 0.9, 0.9, 0.9, 0.2], [1, 0, 1, 1, 1, 0])
    """
    falling = [scores.double().sort(descending=True).values.numpy() for scores in gates.values()]
    values = np.concatenate(falling)
    shares = np.concatenate([np.arange(1, len(group) + 1) / len(group) for group in falling])
    owners = np.repeat(np.arange(len(falling)), [len(group) for group in falling])
    order = np.lexsort((owners, shares, -values))
    return values[order], owners[order]
