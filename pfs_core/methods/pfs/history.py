"""What the evaluations of a search have shown so far."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pfs_core.channels import ChannelGraph
from pfs_core.config.spec import Budget
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.structure.budget_cut import prune_to_budget

CLOSED, OPEN = 0.05, 0.95
"""Gates below and above these are taken to be decided."""


class SearchHistory:
    """The rows of the history, the gates to keep, and whether the structure still moves.

    Attributes:
        rows: one an evaluation; ``moved`` is the share of the channels within the budget that were not within it at
            the evaluation before (1 at the first), ``closed`` and ``open`` the shares of gates at the ends.
        best: the row with the best validation accuracy among those whose non-zero fraction is at most ``target``,
            with its ``gates`` by group; empty if there is none.

    Args:
        graph: the channel graph of the unexpanded network.
        expanded: the width of every group in the search.
        budget: what the structure will be cut to.
        target: the regulariser's target ratio.
        config: says when the structure counts as settled.
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
        self._kept: Tensor | None = None

    def add(self, row: dict[str, Any], gates: Mapping[str, Tensor]) -> dict[str, Any]:
        """Take an evaluation; its row comes back with what moved."""
        before, self._kept = self._kept, self._within_budget(gates)
        row["moved"] = 1.0 if before is None else float((self._kept & ~before).sum() / self._kept.sum())
        values = torch.cat(list(gates.values()))
        row["closed"], row["open"] = (float(share.float().mean()) for share in (values < CLOSED, values > OPEN))
        self.rows.append(row)
        if row["nonzero"] <= self.target and row["val_accuracy"] > self.best.get("val_accuracy", -1.0):
            self.best = {**row, "gates": gates}
        return row

    def settled(self) -> bool:
        """Whether no more than the tolerance moved at each of the last evaluations."""
        last = self.rows[-self.config.settled_evaluations :]
        tolerance, full = self.config.settled, len(last) == self.config.settled_evaluations
        return tolerance is not None and full and all(row["moved"] <= tolerance for row in last)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"rows": self.rows, "best": self.best, "kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.rows, self.best, self._kept = state["rows"], state["best"], state["kept"]

    def _within_budget(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Bool [all gates]: whether a cut now would keep each."""
        widths, _ = prune_to_budget(self.graph, gates, self.budget, self.expanded)
        masks = []
        for group in self.graph.prunable():
            ranks = torch.argsort(torch.argsort(gates[group.name], descending=True, stable=True))
            masks.append(ranks < widths[group.name] // group.blocks)
        return torch.cat(masks)
