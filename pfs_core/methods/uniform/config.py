"""The settings of the method, and what the report says of a search by it."""

from collections.abc import Mapping
from typing import Any, Literal

from pfs_core.methods.config import MethodConfig


class UniformConfig(MethodConfig):
    """One factor for every prunable width."""

    method: Literal["uniform"] = "uniform"


def describe(info: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """What was done."""
    return "no search"
