"""Settings of the uniform baseline, and how the report describes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pfs_core.methods.config import MethodConfig

if TYPE_CHECKING:
    from pfs_core.methods.search_info import SearchInfo


class UniformConfig(MethodConfig):
    """Settings of the uniform baseline, which scales every prunable width by one factor."""

    method: Literal["uniform"] = "uniform"
    """The name of the method."""


def describe(info: "SearchInfo", last: Mapping[str, Any]) -> str:
    """Describe the search for the report: there was none."""
    return "no search"
