"""The settings of the method, and what the report says of a search by it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pfs_core.methods.config import MethodConfig


class PfsConfig(MethodConfig):
    """Pruning from Scratch: learning the gates on frozen random weights."""

    method: Literal["pfs"] = "pfs"
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=2)
    lr: float = Field(default=0.01, gt=0)
    gamma: float = Field(default=0.5, ge=0)
    """Weight of the regulariser (mean gate - target ratio)^2."""
    target_ratio: float | None = Field(default=None, gt=0, le=1)
    """The regulariser's r; None takes the budget's fraction."""
    pretrain_epochs: int = Field(default=0, ge=0)
    """Of training before the search, as Network Slimming's without its penalty; 0, the method, searches on random
    weights."""
    compile: bool = False
    """Use torch.compile (with CUDA graphs on a GPU): quicker steps after some minutes of compiling."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations within an epoch; None evaluates at the end of each."""
    settled: float | None = Field(default=None, ge=0, lt=1)
    """End the search when at most this share of the channels within the budget changes between evaluations."""
    settled_evaluations: int = Field(default=3, ge=1)
    """How many evaluations in a row must say so."""

    @property
    def history_axis(self) -> str:
        """Steps where a search is evaluated within its epochs."""
        return "step" if self.evaluate_every else "epoch"


def describe(info: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """What was done, from ``search.json`` and the last row of the history."""
    epochs = info["recipe"]["epochs"]
    early = f" (ended in epoch {last['epoch']}: the structure had settled)" if last["epoch"] < epochs else ""
    return (
        f"{epochs} epochs{early} on frozen random weights, target ratio {info['target_ratio']}; "
        f"gates of epoch {info['kept_epoch']} (step {info['kept_step']}) kept"
    )
