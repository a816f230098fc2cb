"""The structure file, and Algorithm 1: from gates and a budget to widths, exactly."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

import pfs_core
from pfs_core.channels import ChannelGraph, Cost, resize, trace
from pfs_core.errors import UserError
from pfs_core.files import read_json, write_json
from pfs_core.models import build_model
from pfs_core.spec import Budget, Config, ModelSpec

SCHEMA = "pfs.structure/1"


class CostRecord(Config):
    """:class:`Cost` as JSON."""

    macs: int
    params: int


class BudgetRecord(Config):
    """What was asked for and what was reached, in the unit of ``target``: a fraction or a count."""

    metric: Literal["macs", "params"]
    target: float
    achieved: float
    gap: float
    """``target - achieved``: never negative where a chooser met the budget."""


class Structure(Config):
    """How wide every channel group of a network is, how that was chosen and what it costs.

    A JSON file of a few KB with schema ``pfs.structure/1``; everything needed to build the network again, untrained.
    """

    schema_: Literal["pfs.structure/1"] = Field(default="pfs.structure/1", alias="schema")
    model: ModelSpec
    widths: dict[str, int]
    cost: CostRecord
    reference: CostRecord
    """The unexpanded network."""
    budget: BudgetRecord
    chosen_by: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        graph: ChannelGraph,
        widths: Mapping[str, int],
        budget: Budget,
        chosen_by: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """The structure of ``widths``; ``graph`` is the trace of the unexpanded ``model``."""
        cost, reference = graph.cost(widths), graph.cost()
        unit = getattr(reference, budget.metric) if budget.target <= 1 else 1
        achieved = getattr(cost, budget.metric) / unit
        return cls(
            model=model,
            widths=dict(widths),
            cost=CostRecord(**cost._asdict()),
            reference=CostRecord(**reference._asdict()),
            budget=BudgetRecord(
                metric=budget.metric, target=budget.target, achieved=achieved, gap=budget.target - achieved
            ),
            chosen_by=dict(chosen_by),
            provenance={"pfs_version": pfs_core.__version__, **(provenance or {})},
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a structure file.

        Raises:
            UserError: the file is no structure of this schema, names other groups than its model has, or states
                another cost than they have.
        """
        values = read_json(path)
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise UserError(f"{path} has schema {schema!r}; expected a structure file of schema {SCHEMA!r}")
        structure = cls.parse(values, str(path))
        try:
            graph = structure.graph()
            costs = graph.cost(structure.widths), graph.cost()
        except UserError as e:
            raise UserError(f"{path}: {e}") from None
        if costs != (Cost(**structure.cost.model_dump()), Cost(**structure.reference.model_dump())):
            raise UserError(f"{path}: its widths cost {costs[0]}, not what the file says; extract it again")
        return structure

    def save(self, path: str | Path) -> None:
        """Write the structure file."""
        write_json(path, self.model_dump(mode="json", by_alias=True))

    @property
    def network(self) -> str:
        """What to call it beside others: ``pruned`` where a search chose it, else the method's name."""
        method = str(self.chosen_by.get("method", ""))
        return "pruned" if method == "pfs" else method

    def graph(self) -> ChannelGraph:
        """The channel graph of the unexpanded network."""
        return unexpanded_graph(self.model)

    def build(self) -> nn.Module:
        """The network at these widths, freshly initialised from torch's global random generator."""
        model = build_model(self.model)
        return resize(model, trace(model, self.model.input_shape), self.widths)


def unexpanded_graph(spec: ModelSpec, policy: Literal["inner", "all"] = "inner") -> ChannelGraph:
    """The channel graph of ``spec`` at its published widths; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return trace(build_model(spec), spec.input_shape, policy)


def extract(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    *,
    model: ModelSpec,
    policy: str = "inner",
    channel_multiple: int = 1,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """Algorithm 1 of Wang et al. (2020), solved exactly instead of by bisection.

    Over all gates in falling order, keep the longest prefix whose cost is within the budget; a group never falls
    below one channel (or ``channel_multiple``). Equal gates are ordered so that they are spent evenly over the groups.

    Args:
        graph: the channel graph of the unexpanded network, traced with ``policy``.
        gates: float [expanded width] for each prunable group.
        budget: relative to the unexpanded network.
        model: the network, with the expansion it was searched at.
        policy: for the record.
        channel_multiple: kept widths are multiples of this.
        seed: for the record.
        provenance: for the record.

    Raises:
        UserError: the gates are not this network's, or even the smallest structure is over the budget.
    """
    expanded = graph.expanded(model.expand)
    check_gates(graph, gates, expanded)
    widths, threshold = cut(graph, gates, budget, expanded, channel_multiple)
    chosen_by = {
        "method": "pfs",
        "threshold": threshold,
        "policy": policy,
        "channel_multiple": channel_multiple,
        "seed": seed,
    }
    return Structure.of(model, graph, widths, budget, chosen_by, provenance)


def cut(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    expanded: Mapping[str, int],
    channel_multiple: int = 1,
) -> tuple[dict[str, int], float]:
    """The widths that the largest gates within the budget keep, and the smallest gate kept.

    The cost cannot fall as more channels are kept, so the longest prefix within the budget is found by bisection.

    Args:
        graph: the channel graph of the unexpanded network.
        gates: float [expanded width] for each prunable group.
        budget: relative to the unexpanded network.
        expanded: the width of every group before the cut.
        channel_multiple: kept widths are multiples of this, but never more than there is.

    Raises:
        UserError: the budget is over the dense network, or under the smallest structure.
    """
    check_reachable(graph, expanded, budget, channel_multiple)
    order = ranked_channels({group.name: gates[group.name] for group in graph.prunable()})
    limit = budget.limit(getattr(graph.cost(), budget.metric))

    def widths_at(kept: int) -> dict[str, int]:
        counts = Counter(group for _, group in order[:kept])
        multiple = {g: counts[g] // channel_multiple * channel_multiple for g in gates}
        return {**expanded, **{g: max(min(channel_multiple, expanded[g]), multiple[g]) for g in gates}}

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if getattr(graph.cost(widths_at(middle)), budget.metric) <= limit:
            low = middle
        else:
            high = middle - 1
    return widths_at(low), order[low - 1][0] if low else 1.0


def check_reachable(
    graph: ChannelGraph, expanded: Mapping[str, int], budget: Budget, channel_multiple: int = 1
) -> None:
    """Raise UserError unless the budget is at most the dense network and at least the smallest structure.

    The smallest structure has ``channel_multiple`` channels in every prunable group and the rest as expanded.
    """
    prunable = {group.name for group in graph.prunable()}
    smallest = {g: min(channel_multiple, width) if g in prunable else width for g, width in expanded.items()}
    reference, cost = (getattr(c, budget.metric) for c in (graph.cost(), graph.cost(smallest)))
    if budget.fraction(reference) > 1:
        raise UserError(f"budget {budget} is over the dense network's {reference:,} {budget.metric}; ask for less")
    if cost > reference:
        raise UserError(
            f"budget {budget} cannot be reached, nor can {budget.metric}=1: the smallest structure has {cost:,} "
            f"{budget.metric}; lower extract.channel_multiple or search.expand"
        )
    if cost > budget.limit(reference):
        raise UserError(
            f"budget {budget} cannot be reached; the smallest structure has {cost:,} {budget.metric}, "
            f"so ask for {budget.metric}={_round_up(cost / reference)} or more"
        )


def ranked_channels(gates: Mapping[str, Tensor]) -> list[tuple[float, str]]:
    """``(gate, group)`` of every channel, largest first.

    Among equal gates the one that is a smaller share into its own group comes first, so that a tie across groups is
    spent evenly over them.
    """
    channels = []
    for position, (group, scores) in enumerate(gates.items()):
        falling = scores.double().sort(descending=True, stable=True).values.tolist()
        for i, gate in enumerate(falling):
            channels.append((-gate, (i + 1) / len(falling), position, group))
    return [(-gate, group) for gate, _, _, group in sorted(channels)]


def check_gates(graph: ChannelGraph, gates: Mapping[str, Tensor], expanded: Mapping[str, int]) -> None:
    """Raise UserError unless there is one vector of finite numbers a prunable group, of its expanded width."""
    prunable = [group.name for group in graph.prunable()]
    if sorted(gates) != sorted(prunable):
        raise UserError(f"the gates are for other channel groups: {', '.join(gates)}; expected {', '.join(prunable)}")
    for name, scores in gates.items():
        if scores.shape != (expanded[name],) or not scores.isfinite().all():
            raise UserError(f"the gates of {name!r} must be {expanded[name]} finite numbers (got {list(scores.shape)})")


def _round_up(fraction: float) -> float:
    """``fraction`` with four decimals, rounded up so that asking for it works."""
    return int(fraction * 10_000 + 1) / 10_000
