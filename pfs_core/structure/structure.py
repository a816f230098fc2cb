"""The structure file, and how gates become one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

import pfs_core
from pfs_core.channels import ChannelGraph, Cost, resize, trace
from pfs_core.channels.tracer import Placement, Policy
from pfs_core.config.spec import Budget, Config, ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.structure.budget_cut import CostModel, check_gates, closed_form, prune_to_budget

SCHEMA = "pfs.structure/1"
FILES = {"pruned": "structure.json", "uniform": "uniform.json", "dense": "dense.json"}
"""The file of each network in a ``structures`` folder."""


class CostRecord(Config):
    """:class:`Cost` as JSON."""

    macs: int
    params: int


class BudgetRecord(Config):
    """What was asked for and what was reached, in the unit of ``target``: a fraction or a count."""

    metric: Literal["macs", "params", "latency"]
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
    def from_widths(
        cls,
        model: ModelSpec,
        graph: ChannelGraph,
        widths: Mapping[str, int],
        budget: Budget,
        chosen_by: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        cost_model: CostModel | None = None,
    ) -> Self:
        """The structure of ``widths``; ``graph`` is the trace of the unexpanded ``model``."""
        cost, reference = graph.cost(widths), graph.cost()
        cost_model = cost_model or closed_form(graph, budget.metric)
        achieved = cost_model.cost(widths) / (cost_model.dense if budget.target <= 1 else 1)
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
        """What to call it beside others: ``pruned`` where it was cut from gates, else the method's name."""
        return "pruned" if "threshold" in self.chosen_by else str(self.chosen_by.get("method", ""))

    @property
    def target_budget(self) -> Budget:
        """The budget that it was cut to."""
        return Budget(metric=self.budget.metric, target=self.budget.target)

    @property
    def title(self) -> str:
        """The network's name and the budget that it was cut to."""
        return f"{self.model.name} {self.target_budget}"

    def graph(self) -> ChannelGraph:
        """The channel graph of the unexpanded network."""
        return unexpanded_graph(self.model)

    def build(self) -> nn.Module:
        """The network at these widths, freshly initialised from torch's global random generator."""
        model = build_model(self.model)
        return resize(model, trace(model, self.model.input_shape), self.widths)


def unexpanded_graph(spec: ModelSpec, policy: Policy = "inner", placement: Placement = "last") -> ChannelGraph:
    """The channel graph of ``spec`` at its published widths; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return trace(build_model(spec), spec.input_shape, policy, placement)


def extract(
    graph: ChannelGraph,
    gates: Mapping[str, Tensor],
    budget: Budget,
    *,
    model: ModelSpec,
    method: str = "pfs",
    policy: str = "inner",
    channel_multiple: int = 1,
    floor: float = 0.0,
    cost_model: CostModel | None = None,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """The structure of the largest gates within the budget (:func:`pfs_core.structure.budget_cut.prune_to_budget`).

    Over all gates in falling order, keep the longest prefix whose cost is within the budget; a group never falls
    below one channel (or ``channel_multiple``, or ``floor``). Equal gates are spent evenly over the groups.

    Args:
        graph: the channel graph of the unexpanded network, traced with ``policy``.
        gates: float [expanded width] for each prunable group ([expanded width / blocks] where it has ``blocks``).
        budget: relative to the unexpanded network.
        model: the network, with the expansion it was searched at.
        method: that found the gates, for the record.
        policy: for the record.
        channel_multiple: kept widths are multiples of this.
        floor: the share of its unexpanded width that every prunable group keeps at least.
        cost_model: of widths in the budget's metric; None for MACs and parameters.
        seed: for the record.
        provenance: for the record.

    Raises:
        UserError: the gates are not this network's, or even the smallest structure is over the budget.
    """
    expanded = graph.expanded(model.expand, model.expand_stream)
    check_gates(graph, gates, expanded)
    widths, threshold = prune_to_budget(graph, gates, budget, expanded, channel_multiple, floor, cost_model)
    chosen_by = {
        "method": method,
        "threshold": threshold,
        "policy": policy,
        "channel_multiple": channel_multiple,
        "floor": floor,
        "seed": seed,
    }
    return Structure.from_widths(model, graph, widths, budget, chosen_by, provenance, cost_model)
