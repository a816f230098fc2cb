"""The search step: one entry for every method, and one folder that all of them end in."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split
from pfs_core.methods.config import MethodConfig
from pfs_core.methods.context import search_context
from pfs_core.methods.gates_folder import write_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.registry import method_named
from pfs_core.methods.search_info import SearchInfo
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import pick_device, resolve_precision
from pfs_core.runtime.progress import Record, ignore
from pfs_core.storage.artifacts import check_out
from pfs_core.training.checkpoints import Checkpoints
from pfs_core.training.finished import done_with


def search(
    spec: ModelSpec,
    split: str | Path,
    out: str | Path,
    budget: Budget = Budget(target=0.5),
    config: MethodConfig = PfsConfig(),
    seed: int = 0,
    record: Record = ignore,
) -> SearchInfo:
    """Choose channels by the method of ``config`` and write the ``gates`` folder.

    ``gates.safetensors`` has one float32 vector per prunable group, ``history.parquet`` one row per evaluation, epoch
    or episode, ``search.json`` the network, settings, seed and timings. The same seed gives the same gates, byte for
    byte, on one machine with one number of threads. A search that is stopped resumes from its checkpoints.

    Args:
        spec: the network; its ``expand`` is replaced by the configuration's.
        split: a ``split`` folder.
        out: the folder to write.
        budget: what the structure will be cut to.
        config: the settings of a method, as :func:`pfs_core.methods.registry.method_config` makes them.
        seed: of everything that is random: initial weights, order of the images, draws.
        record: called with every row of the history.

    Returns:
        The content of ``search.json``.

    Raises:
        UserError: the split is not one, the network cannot process its images or has nothing to prune, the budget
            cannot be reached, or the method cannot be used with this network.
    """
    check_out(out, "search")
    data = load_split(split, pick_device())
    context = search_context(spec, data, budget, config, seed, partial(Checkpoints, out), record)
    with context.checkpoints as checkpoints:
        found = method_named(config.method).run(context)
    cost = found.cost or {"search": stage_cost(data.device, checkpoints.elapsed(), 0, 0)}
    facts = {"precision": resolve_precision(config.precision, data.device), **found.facts}
    info = write_gates(out, context, budget, replace(found, cost=cost, facts=facts))
    done_with(checkpoints)
    return info
