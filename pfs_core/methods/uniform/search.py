"""Gates that are all equal, which a cut spends evenly over the groups."""

from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.structure.budget_cut import equal_gates


def run(context: SearchContext) -> MethodResult:
    """Every gate is 1."""
    return MethodResult(equal_gates(context.graph, context.widths))
