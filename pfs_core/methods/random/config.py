"""The settings of the method, and what the report says of a search by it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pfs_core.methods.config import MethodConfig


class RandomConfig(MethodConfig):
    """Widths drawn at random, then brought to the budget; another seed is another draw."""

    method: Literal["random"] = "random"
    lowest: float = Field(default=0.1, gt=0, lt=1)
    """Each group's share of its channels is drawn between this and 1."""


def describe(info: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """What was done."""
    return "no search"
