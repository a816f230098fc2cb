"""The structure file, and the extraction that makes one from gates."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

import pfs_core
from pfs_core.channels import ChannelGraph, Cost, Refuted, resize, trace
from pfs_core.channels.tracer import Placement, Policy
from pfs_core.config.spec import Budget, Config, ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model, is_users_own, network_without_values
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.storage.digests import json_digest
from pfs_core.structure.budget_cut import CostModel, check_gates, closed_form, prune_to_budget
from pfs_core.structure.cut_rules import CutRules

SCHEMA = "pfs.structure/1"
FILES = {"pruned": "structure.json", "uniform": "uniform.json", "dense": "dense.json"}
"""The name of each network's file in a ``structures`` folder."""


class CostRecord(Config):
    """A :class:`~pfs_core.channels.Cost` as it is written into a structure file."""

    macs: int
    params: int


class BudgetRecord(Config):
    """The budget that was asked for and the cost that was achieved, both as a fraction or both as a count."""

    metric: Literal["macs", "params", "latency"]
    target: float
    achieved: float
    gap: float
    """``target - achieved``, which is never negative for MACs and parameters; a latency is met within 2%."""

    @property
    def got(self) -> str:
        """What was achieved, as text: ``0.454`` of a fraction, ``1,792`` of a count."""
        return f"{self.achieved:.3f}" if self.target <= 1 else f"{self.achieved:,.0f}"


class Structure(Config):
    """The width of every channel group of a network, how the widths were chosen, and what they cost.

    It is saved as a JSON file of a few KB with schema ``pfs.structure/1``, which holds everything that is needed to
    build the untrained network.
    """

    schema_: Literal["pfs.structure/1"] = Field(default="pfs.structure/1", alias="schema")
    model: ModelSpec
    widths: dict[str, int]
    cost: CostRecord
    reference: CostRecord
    """The cost of the unexpanded network."""
    budget: BudgetRecord
    chosen_by: dict[str, Any]
    provenance: dict[str, Any]
    frozen: dict[str, str] = Field(default_factory=dict)
    """Channel groups that the proof of the graph has left as they are, each with the reason."""
    no_wider: dict[str, str] = Field(default_factory=dict)
    """Channel groups that it lets lose channels and not get more, each with the reason."""
    needed: dict[str, str] = Field(default_factory=dict)
    """Residual branches that it found cannot be left out, each with the reason."""

    @field_validator("chosen_by")
    @classmethod
    def _by_a_known_policy(cls, chosen_by: dict[str, Any]) -> dict[str, Any]:
        if chosen_by.get("policy", "inner") not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}")
        return chosen_by

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
        """Return the structure of ``widths``.

        Args:
            model: the network, with the expansion that it was searched at.
            graph: the channel graph of the unexpanded network, without what the proof refuted.
            widths: the width of every group.
            budget: the budget that the widths were chosen for.
            chosen_by: the method and its settings, for the record.
            provenance: what else to record.
            cost_model: the cost of widths in the budget's metric; None for MACs and parameters.
        """
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
            frozen=dict(graph.refuted.frozen),
            no_wider=dict(graph.refuted.no_wider),
            needed=dict(graph.refuted.needed or {}),
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a structure file.

        Raises:
            UserError: the file is not a structure of this schema, its groups are not those of its model, or its cost is
                not that of its widths.
        """
        values = read_json(path)
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise UserError(f"{path} has schema {schema!r}; expected a structure file of schema {SCHEMA!r}")
        structure = cls.parse(values, str(path))
        try:
            graph = structure.graph()
            costs = {"its widths cost": graph.cost(structure.widths), "its unexpanded network costs": graph.cost()}
        except UserError as e:
            raise UserError(f"{path}: {e}") from None
        for (what, cost), said in zip(costs.items(), (structure.cost, structure.reference), strict=True):
            if cost != Cost(**said.model_dump()):
                raise UserError(
                    f"{path}: {what} {cost.macs:,} MACs and {cost.params:,} parameters, where the file says "
                    f"{said.macs:,} and {said.params:,}; if the network has changed, search and extract again"
                )
        return structure

    def save(self, path: str | Path) -> None:
        """Write the structure file; of what the proof refuted it says something only where there is something."""
        empty = {key for key, reasons in self.refuted._asdict().items() if not reasons}
        write_json(path, self.model_dump(mode="json", by_alias=True, exclude=empty))

    @property
    def network(self) -> str:
        """The name beside other networks: ``pruned`` if it was cut from gates, otherwise the method's name."""
        return "pruned" if "threshold" in self.chosen_by else str(self.chosen_by.get("method", ""))

    @property
    def policy(self) -> Policy:
        """The policy by which its groups were pruned; ``inner`` where none were, as in the dense network."""
        policy: Policy = self.chosen_by.get("policy", "inner")
        return policy

    @property
    def refuted(self) -> Refuted:
        """What the channel graph said of the network and does not hold."""
        return Refuted(self.frozen, self.no_wider, self.needed)

    @property
    def block(self) -> int:
        """The number of channels that the runtime it was cut for computes at once; 1 for the paper's cut."""
        return int(self.chosen_by.get("block", 1))

    @property
    def left_out(self) -> list[str]:
        """The residual branches that the network does without, each by the module that returned what it added."""
        return [branch.name for branch in self.graph().left_out(self.widths)] if 0 in self.widths.values() else []

    @property
    def digest(self) -> str:
        """The SHA-256 of its widths and how they came about, which is the same in files of every version."""
        return json_digest([self.widths, self.budget.model_dump(), self.chosen_by, self.provenance], 64)

    @property
    def dataset(self) -> str:
        """The address of the dataset that its gates were learned on; empty if it is not known."""
        return str(self.provenance.get("dataset", ""))

    @property
    def target_budget(self) -> Budget:
        """The budget that it was cut to."""
        return Budget(metric=self.budget.metric, target=self.budget.target)

    @property
    def title(self) -> str:
        """The network's name and the budget that it was cut to."""
        return f"{self.model.name} {self.target_budget}"

    def graph(self) -> ChannelGraph:
        """Return the channel graph that the widths were chosen in: by its policy, without what the proof refuted.

        Its widths are those of the unexpanded network. The gates are at the last place, wherever the search had them.
        Files of older versions do not say what the proof refuted, nor that a uniform network is of the policy ``all``.
        """
        return self.refuted.corrected(unexpanded_graph(self.model, self.policy))

    def build(self) -> nn.Module:
        """Return the network at these widths, freshly initialised from torch's global random generator."""
        return resize(build_model(self.model), self.graph(), self.widths)


def block_record(block: int) -> dict[str, Any]:
    """Return what ``chosen_by`` records of a runtime's blocks; nothing for the paper's cut, which has none."""
    return {"block": block} if block > 1 else {}


def policy_record(policy: str) -> dict[str, Any]:
    """Return what ``chosen_by`` records of the policy of a structure without a search; nothing for the usual one."""
    return {"policy": policy} if policy != "inner" else {}


def unexpanded_graph(spec: ModelSpec, policy: Policy = "inner", placement: Placement = "last") -> ChannelGraph:
    """Return the channel graph of ``spec`` as traced, at its published widths; torch's random state is left as it was.

    It is traced once in a process, unless the network is the user's own, whose code may change meanwhile.
    """
    traced = _traced.__wrapped__ if is_users_own(spec.name) else _traced
    return traced(spec.model_dump_json(), policy, placement)


@lru_cache(maxsize=32)
def _traced(spec: str, policy: Policy, placement: Placement) -> ChannelGraph:
    model = ModelSpec.model_validate_json(spec)
    with torch.random.fork_rng(devices=[]):
        return trace(network_without_values(model), model.input_shape, policy, placement)


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
    block: int = 1,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Structure:
    """Return the structure of the largest gates within the budget.

    Of all gates in falling order, the longest prefix whose cost is within the budget is kept
    (:func:`~pfs_core.structure.budget_cut.prune_to_budget`). A group never falls below one channel (or
    ``channel_multiple``, or ``floor``), unless its residual branch is left out, and equal gates are shared evenly
    between the groups.

    Args:
        graph: the channel graph of the unexpanded network, traced with ``policy``.
        gates: the gates of every prunable group, float [expanded width / channels per gate].
        budget: the budget, relative to the unexpanded network.
        model: the network, with the expansion that it was searched at.
        method: the method that found the gates, for the record.
        policy: the policy of the trace, for the record.
        channel_multiple: kept widths are multiples of this.
        floor: the fraction of its unexpanded width that every prunable group keeps at least.
        cost_model: the cost of widths in the budget's metric; None for MACs and parameters.
        block: the number of channels that the runtime computes at once; 1 is the paper's cut.
        seed: the seed of the search, for the record.
        provenance: what else to record.

    Raises:
        UserError: the gates are not those of this network, or even the smallest structure is over the budget.

    >>> spec = ModelSpec(name="resnet20")
    >>> graph = unexpanded_graph(spec)
    >>> gates = {group.name: torch.linspace(0, 1, group.width) for group in graph.prunable()}
    >>> structure = extract(graph, gates, Budget.from_text("macs=0.5"), model=spec)
    >>> structure.widths["layer1.0.conv1"], round(structure.budget.achieved, 3)
    (8, 0.496)
    """
    expanded = graph.expanded(model.expand, model.expand_stream)
    check_gates(graph, gates, expanded)
    rules = CutRules(channel_multiple, floor, block)
    widths, threshold = prune_to_budget(graph, gates, budget, expanded, rules, cost_model)
    chosen_by = {
        "method": method,
        "threshold": threshold,
        "policy": policy,
        "channel_multiple": channel_multiple,
        "floor": floor,
        **block_record(block),
        "seed": seed,
    }
    return Structure.from_widths(model, graph, widths, budget, chosen_by, provenance, cost_model)
