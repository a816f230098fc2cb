"""The evaluations of a search so far, the best gates among them, and whether the structure has settled."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.structure.budget_cut import prune_to_budget

CLOSED, OPEN = 0.05, 0.95
"""Gates below the first and above the second value count as decided."""


class SearchHistory:
    """The rows of ``history.parquet``, and the gates that the search will return.

    Attributes:
        rows: one row per evaluation. To what the caller measured, :meth:`add` adds three columns: ``moved`` is the
            share of the channels within the budget that were not within it at the previous evaluation (1 at the first
            one); ``closed`` and ``open`` are the shares of gates below ``CLOSED`` and above ``OPEN``.
        best: the row with the highest validation accuracy among those whose share of non-zero gates is at most
            ``target``, with its ``gates`` by group; empty as long as there is no such row.
        within_budget: bool [all gates], the channels that a cut at the last evaluation would have kept; None before
            the first evaluation.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group in the search.
        budget: the budget that the structure will be cut to.
        target: the target ratio of the regulariser.
        config: the settings of the search, which say when the structure counts as settled.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        expanded: Mapping[str, int],
        budget: Budget,
        target: float,
        config: PfsConfig,
    ) -> None:
        self.graph, self.expanded, self.budget = graph, expanded, budget
        self.target, self.config = target, config
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.within_budget: Tensor | None = None

    def add(self, row: dict[str, Any], gates: Mapping[str, Tensor]) -> dict[str, Any]:
        """Add an evaluation.

        Args:
            row: what was measured, with at least ``nonzero`` and ``val_accuracy``.
            gates: ``{group: float32 [gates]}`` at the evaluation.

        Returns:
            The row with the columns ``moved``, ``closed`` and ``open``.
        """
        before, now = self.within_budget, self._cut(gates)
        row["moved"] = 1.0 if before is None else float((now & ~before).sum() / now.sum())
        values = torch.cat(list(gates.values()))
        row["closed"] = float((values < CLOSED).float().mean())
        row["open"] = float((values > OPEN).float().mean())
        self.within_budget = now
        self.rows.append(row)
        if row["nonzero"] <= self.target and row["val_accuracy"] > self.best.get("val_accuracy", -1.0):
            self.best = {**row, "gates": gates}
        return row

    def settled(self) -> bool:
        """Whether the share that ``moved`` has been within the tolerance at enough consecutive evaluations."""
        tolerance, count = self.config.settled, self.config.settled_evaluations
        if tolerance is None or len(self.rows) < count:
            return False
        return all(row["moved"] <= tolerance for row in self.rows[-count:])

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"rows": self.rows, "best": self.best, "kept": self.within_budget}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`."""
        self.rows, self.best, self.within_budget = state["rows"], state["best"], state["kept"]

    def _cut(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return, as bool [all gates], which channels a cut at the budget would keep now."""
        widths, _ = prune_to_budget(self.graph, gates, self.budget, self.expanded)
        masks = []
        for group in self.graph.prunable():
            ranks = torch.argsort(torch.argsort(gates[group.name], descending=True, stable=True))
            masks.append(ranks < widths[group.name] // group.per_gate)
        return torch.cat(masks)
