"""Algorithm 1 of Wang et al. (2020): from gates and a budget to widths.

The paper finds a threshold on the gates by bisection, and builds a network for each threshold to count its cost. Here
the cost of any widths is known in closed form, so that the cut is exact: no further gate would fit into the budget.

Where a runtime computes channels in blocks (:mod:`pfs_core.structure.blocks`), each group gets the fast width nearest
to the number of gates above the threshold: a block that is at least half used is filled, which costs no time, and one
that is hardly used is not bought. A residual branch is left out where most of its first blocks would not be used, and
is whole blocks wide otherwise. What comes back last may be half a block wide, where a whole one does not fit.

Blocks make the steps of a cut coarse: one of a small network's layers is a tenth of its time. Where a latency is asked
for, what the longest prefix leaves of it goes to the next gates that fit. That prefix makes no group narrower where the
budget grows; what goes on after it may.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.channels.graph import Branch, ChannelGroup
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure.blocks import fast_widths

_SHOWN = 6
"""Number of groups whose reasons a message gives."""


class CostModel(NamedTuple):
    """The cost of widths in the metric of a budget.

    Attributes:
        cost: returns the cost of widths. It must not fall when a width grows.
        dense: the cost of the unexpanded network.
        text: returns an amount with its unit, for messages.
        advice: what else a user can try where no structure is cheap enough; it follows a message.
    """

    cost: Callable[[Mapping[str, int]], float]
    dense: float
    text: Callable[[float], str]
    advice: str = ""


def closed_form(graph: ChannelGraph, metric: str) -> CostModel:
    """Return the cost model of ``macs`` or ``params``, which the graph knows in closed form."""
    return CostModel(
        lambda widths: getattr(graph.cost(widths), metric),
        getattr(graph.cost(), metric),
        lambda amount: f"{amount:,} {metric}",
    )


def prune_to_budget(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    expanded: Mapping[str, int],
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
    block: int = 1,
    branches: bool = True,
) -> tuple[dict[str, int], float]:
    """Keep the largest gates, as many as the budget allows.

    All gates of the network are ranked together (:func:`ranked_channels`), and the longest prefix of this ranking whose
    cost is within the budget is kept. No group falls below its minimum (:func:`min_widths`). Under a latency, later
    gates that still fit are kept too (:func:`fills`).

    Args:
        graph: the channel graph of the unexpanded network.
        gates: the gates of every prunable group, float [expanded gates].
        budget: the budget, relative to the unexpanded network.
        expanded: the width of every group before the cut.
        channel_multiple: kept widths are multiples of this, but never more than the expanded width.
        floor: the fraction of its unexpanded width that every prunable group keeps at least.
        cost_model: the cost of widths in the budget's metric; None for MACs and parameters, which the graph knows.
        block: the number of channels that the runtime computes at once; 1 is the paper's cut.
        branches: whether residual branches may be left out, where there are blocks and no floor.

    Returns:
        The width of every group after the cut, and the smallest gate of the prefix (1 if only the minimal widths are
        kept).

    Raises:
        UserError: the budget is over the dense network, or under the smallest structure.

    >>> from torch import nn
    >>> from pfs_core.channels import trace
    >>> layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)]
    >>> graph = trace(nn.Sequential(*layers), (3, 8, 8))
    >>> gates = {"0": torch.tensor([0.5, 0.0, 0.25, 1.0])}
    >>> prune_to_budget(graph, gates, Budget(target=0.6), graph.widths())
    ({'input': 3, '0': 2, '4': 10}, 0.5)
    """
    cost_model = cost_model or closed_form(graph, budget.metric)
    check_reachable(graph, expanded, budget, channel_multiple, floor, cost_model, block, branches)
    ranking = Ranking(graph, gates, expanded, channel_multiple, floor, block, branches)
    kept, widths = ranking.cut(cost_model.cost, budget.limit(cost_model.dense), fill=fills(budget.metric, block))
    return widths, float(ranking.values[kept - 1]) if kept else 1.0


class Ranking:
    """All gates of a network in falling order, and the widths that each prefix of them leads to.

    Args:
        graph: as for :func:`prune_to_budget`, like the others.
        gates: the gates of every prunable group, float [expanded gates].
        expanded: the width of every group before the cut.
        channel_multiple: kept widths are multiples of this.
        floor: the fraction of its unexpanded width that every prunable group keeps at least.
        block: the number of channels that the runtime computes at once.
        branches: whether residual branches may be left out.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        gates: Mapping[str, Tensor],
        expanded: Mapping[str, int],
        channel_multiple: int = 1,
        floor: float = 0.0,
        block: int = 1,
        branches: bool = True,
    ) -> None:
        groups = graph.prunable()
        self.values, self._owners = ranked_channels({group.name: gates[group.name] for group in groups})
        self._least = min_widths(graph, expanded, channel_multiple, floor, block, branches)
        optional = _optional_branches(graph, floor, block, branches)
        self._together = {name: branch.groups for branch in optional for name in branch.groups}
        candidates = {group.name: _candidates(group, expanded, channel_multiple, floor, block) for group in groups}
        self._halves: dict[str, int] = {}
        for name in self._together:
            whole = [width for width in candidates[name] if width >= block] or candidates[name][-1:]
            self._halves[name] = max([width for width in candidates[name] if 2 * width <= whole[0]], default=whole[0])
            candidates[name] = whole
        self._first = {name: widths[0] for name, widths in candidates.items()}
        self._blocks = {group.name: group.blocks for group in groups}
        self._tables = {
            group.name: _width_by_count(group, expanded[group.name], candidates[group.name], channel_multiple)
            for group in groups
        }

    def widths(self, kept: int) -> dict[str, int]:
        """Return the width of every group where the ``kept`` largest gates are kept."""
        return self._widths(self._counts(kept))

    def cut(
        self, cost: Callable[[Mapping[str, int]], float], limit: float, low: int = 0, fill: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Return the length of the longest prefix that costs at most ``limit``, and its widths.

        Where the next gate would bring back a branch, it comes back half a block wide if that is within the limit. With
        ``fill`` the gates after it are kept too, one after the other, as far as each is within the limit. Of a group
        that has a gate that is not, no later one is. The other arguments are those of :meth:`longest`.
        """
        kept = self.longest(cost, limit, low)
        counts = self._counts(kept)
        widths = self._widths(counts)
        names, full = list(self._tables), set()
        for owner in self._owners[kept : None if fill else kept + 1].tolist():
            if (name := names[owner]) in full:
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
        return kept, widths

    def longest(self, cost: Callable[[Mapping[str, int]], float], limit: float, low: int = 0) -> int:
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
        used = sum(counts[other] * self._blocks[other] for other in together)
        left_out = 2 * used < sum(self._first[other] for other in together)
        return 0 if left_out else self._tables[name][counts[name]]


def fills(metric: str, block: int) -> bool:
    """Return whether a cut goes on with later gates that fit where the next one does not.

    So it does in blocks, whose steps are coarse, to land on a latency. A larger budget of MACs or parameters narrows no
    layer, which would not hold where later gates take the place of the next one; nor is there much left in the paper's
    cut.
    """
    return metric == "latency" and block > 1


def min_widths(
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    channel_multiple: int = 1,
    floor: float = 0.0,
    block: int = 1,
    branches: bool = True,
) -> dict[str, int]:
    """Return the smallest widths that a cut may lead to; groups that are not pruned keep their expanded width.

    A prunable group keeps at least the smallest width that is fast in the runtime, at least ``floor`` times its
    unexpanded width, and a multiple of ``channel_multiple`` and of its own blocks. In a residual branch that can be
    left out it keeps nothing, unless there is a floor or the paper's cut is asked for, or ``branches`` is not set.
    """
    widths = dict(expanded)
    for group in graph.prunable():
        widths[group.name] = _candidates(group, expanded, channel_multiple, floor, block)[0]
    for branch in _optional_branches(graph, floor, block, branches):
        widths |= dict.fromkeys(branch.groups, 0)
    return widths


def _optional_branches(graph: ChannelGraph, floor: float, block: int, branches: bool) -> tuple[Branch, ...]:
    """Return the residual branches that a cut may leave out; with a floor, and in the paper's cut, there are none."""
    return graph.branches if branches and block > 1 and not floor else ()


def _candidates(
    group: ChannelGroup, expanded: Mapping[str, int], channel_multiple: int, floor: float, block: int
) -> list[int]:
    """Return the widths that a group may be cut to, rising."""
    step = math.lcm(channel_multiple, group.blocks)
    # 0.55 * 100 is 55.00000000000001 in floating point, which must not ask for 56.
    least = max(1, math.ceil(floor * group.width / step - 1e-9)) * step
    widest = expanded[group.name]
    return [width for width in fast_widths(widest, block, step) if width >= least] or [widest]


def _width_by_count(group: ChannelGroup, expanded: int, candidates: list[int], channel_multiple: int) -> list[int]:
    """Return the width that a group gets for each number of its gates that is kept, from none to all."""
    step = math.lcm(channel_multiple, group.blocks)
    wanted = np.arange(0, expanded + 1, group.blocks) // step * step
    # A wider candidate is chosen from the middle between two on: half of its block is used then.
    middles = [(low + high) / 2 for low, high in itertools.pairwise(candidates)]
    return [candidates[place] for place in np.searchsorted(middles, wanted, side="right")]


def check_reachable(
    graph: ChannelGraph,
    expanded: Mapping[str, int],
    budget: Budget,
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
    block: int = 1,
    branches: bool = True,
) -> None:
    """Raise UserError unless the budget is at most the dense network and at least the smallest structure.

    Without a ``cost_model`` a latency is judged by the same fraction of the MACs.
    """
    if not graph.prunable():
        shown = [f"{group.name}: {group.reason}" for group in graph.groups[:_SHOWN]]
        more = [f"and {len(graph.groups) - _SHOWN} more"] if len(graph.groups) > _SHOWN else []
        raise UserError(f"no channel group of the network can be pruned ({'; '.join([*shown, *more])})")
    cost_model = cost_model or closed_form(graph, budget.in_macs.metric)
    cost = cost_model.cost(min_widths(graph, expanded, channel_multiple, floor, block, branches))
    if budget.fraction(cost_model.dense) > 1:
        raise UserError(
            f"budget {budget} is over the dense network's {cost_model.text(cost_model.dense)}; ask for less"
        )
    if cost > cost_model.dense:
        raise UserError(
            f"budget {budget} cannot be reached, nor can {budget.metric}=1: the smallest structure has "
            f"{cost_model.text(cost)}; lower extract.channel_multiple, extract.blocks, extract.floor or "
            f"search.expand{cost_model.advice}"
        )
    if cost > budget.limit(cost_model.dense):
        settings = {"extract.floor": floor, "extract.channel_multiple": channel_multiple - 1}
        lower = " or ".join(name for name, value in settings.items() if value)
        raise UserError(
            f"budget {budget} cannot be reached; the smallest structure has {cost_model.text(cost)}, "
            f"so ask for {budget.metric}={_round_up(cost / cost_model.dense)} or more"
            f"{f', or lower {lower}' if lower else ''}{cost_model.advice}"
        )


def ranked_channels(gates: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Rank all gates of a network, largest first.

    Equal gates are ranked by their position in their own group as a fraction of its size, so that a tie between groups
    is shared evenly: of groups with 2 and 4 equal gates, each prefix holds about the same fraction.

    Args:
        gates: the gates of every group, float [gates].

    Returns:
        The gates in falling order, float64 [n], and for each one the position of its group in ``gates``, int64 [n].

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


def check_gates(graph: ChannelGraph, gates: Mapping[str, Tensor], expanded: Mapping[str, int]) -> None:
    """Raise UserError unless every prunable group has one vector of finite numbers, one for each of its gates."""
    groups = graph.prunable()
    prunable = [group.name for group in groups]
    if sorted(gates) != sorted(prunable):
        raise UserError(f"the gates are for other channel groups: {', '.join(gates)}; expected {', '.join(prunable)}")
    for group in groups:
        scores, count = gates[group.name], expanded[group.name] // group.blocks
        if scores.shape != (count,) or not scores.isfinite().all():
            raise UserError(f"the gates of {group.name!r} must be {count} finite numbers (got {list(scores.shape)})")


def equal_gates(graph: ChannelGraph, expanded: Mapping[str, int]) -> dict[str, Tensor]:
    """Return gates that are all 1, for every prunable group: the cut of these is the uniform structure."""
    return {group.name: torch.ones(expanded[group.name] // group.blocks) for group in graph.prunable()}


def _round_up(fraction: float) -> float:
    """Return ``fraction`` with four decimals, rounded up so that a user who asks for it gets a structure."""
    return min(int(fraction * 10_000 + 1) / 10_000, 1.0)
