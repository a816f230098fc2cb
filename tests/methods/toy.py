"""A method of a user's own: the first channels of every group are the best ones."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from pfs_core.methods.config import MethodConfig
from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult


class ToyConfig(MethodConfig):
    """Falling gates."""

    method: Literal["toy"] = "toy"
    lowest: float = 0.1
    """The gate of the last channel of every group."""


def describe(info: Any, last: Mapping[str, Any]) -> str:
    """What was done."""
    return "the first channels, no questions asked"


def run(context: SearchContext) -> MethodResult:
    """Number the channels."""
    config = context.config_as(ToyConfig)
    return MethodResult(
        {
            group.name: torch.linspace(1.0, config.lowest, context.widths[group.name] // group.per_gate)
            for group in context.graph.prunable()
        }
    )
