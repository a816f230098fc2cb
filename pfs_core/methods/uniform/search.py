"""The uniform baseline: gates that are all equal, of which extraction keeps the same share in every group."""

from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.structure.budget_cut import equal_gates


def run(context: SearchContext) -> MethodResult:
    """Return gates that are all 1."""
    return MethodResult(equal_gates(context.graph, context.widths))
