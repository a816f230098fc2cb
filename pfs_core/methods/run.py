"""One entry for every way of choosing a structure; each ends in a ``gates`` folder."""

from pathlib import Path
from typing import Any

from pfs_core.config.recipes import AmcRecipe, MethodRecipe, RandomRecipe, SearchRecipe, SlimmingRecipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import ImageSplit, load_split
from pfs_core.methods.amc.search import allocate
from pfs_core.methods.context import Start, start
from pfs_core.methods.gates_folder import write_gates
from pfs_core.methods.network_slimming import slim
from pfs_core.methods.pfs.search import search
from pfs_core.methods.random import random_gates
from pfs_core.methods.result import Chosen
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import pick_device, resolve_precision
from pfs_core.runtime.progress import Record, ignore
from pfs_core.storage.artifacts import check_out
from pfs_core.structure.budget_cut import equal_gates
from pfs_core.training.checkpoints import Checkpoints


def choose(
    spec: ModelSpec,
    split: str | Path,
    out: str | Path,
    budget: Budget,
    recipe: MethodRecipe,
    seed: int = 0,
    record: Record = ignore,
) -> dict[str, Any]:
    """Write the ``gates`` folder by the method of ``recipe``; arguments and result as
    :func:`pfs_core.methods.pfs.search`.

    Raises:
        UserError: as there, and where the method cannot be used with this network or budget.
    """
    if isinstance(recipe, SearchRecipe):
        return search(spec, split, out, budget, recipe, seed, record)
    check_out(out, "search")
    data = load_split(split, pick_device())
    begun = start(spec, data, budget, recipe, seed)
    with Checkpoints(out, begun.key(data, budget, recipe, seed)) as kept:
        found = _chosen(begun, data, recipe, seed, record, kept)
    cost = found.cost or {"search": stage_cost(data.device, kept.spent(), 0, 0)}
    facts = {"precision": resolve_precision(recipe.precision, data.device), **found.facts}
    info = write_gates(out, begun, data, budget, recipe, seed, found._replace(cost=cost, facts=facts))
    kept.clear()
    return info


def _chosen(
    begun: Start, data: ImageSplit, recipe: MethodRecipe, seed: int, record: Record, kept: Checkpoints
) -> Chosen:
    if isinstance(recipe, AmcRecipe):
        return allocate(begun, data, recipe, seed, record, kept)
    if isinstance(recipe, SlimmingRecipe):
        return slim(begun, data, recipe, seed, record, kept)
    if isinstance(recipe, RandomRecipe):
        return Chosen(random_gates(begun.graph, begun.widths, recipe.lowest, seed))
    return Chosen(equal_gates(begun.graph, begun.widths))
