"""Settings of the random baseline, and how the report describes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pfs_core.methods.config import MethodConfig

if TYPE_CHECKING:
    from pfs_core.methods.search_info import SearchInfo


class RandomConfig(MethodConfig):
    """Settings of the random baseline: shares are drawn by the seed, then scaled to the budget by one factor."""

    method: Literal["random"] = "random"
    """The name of the method."""
    lowest: float = Field(default=0.1, gt=0, lt=1)
    """Lower bound of the share of its channels that a group may draw; the upper bound is 1."""


def describe(info: "SearchInfo", last: Mapping[str, Any]) -> str:
    """Describe the search for the report: there was none."""
    return "no search"
