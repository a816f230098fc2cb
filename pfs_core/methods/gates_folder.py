"""The ``gates`` folder, which the search of every method ends in."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

import pfs_core
from pfs_core.config.spec import Budget
from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.methods.search_info import SearchInfo
from pfs_core.runtime.device import memory_text, peak_memory
from pfs_core.runtime.environment import code
from pfs_core.storage.artifacts import publish, require_result
from pfs_core.structure.inherited_weights import save_trained

logger = logging.getLogger(__package__)

PRETRAINING = "pretraining.parquet"


def write_gates(out: str | Path, context: SearchContext, budget: Budget, found: MethodResult) -> SearchInfo:
    """Write ``gates.safetensors``, ``history.parquet`` and ``search.json``; returns the content of the last.

    ``pretraining.parquet`` is there too where there was such a training.

    Args:
        out: the folder.
        context: what the method started from.
        budget: that the user asked for.
        found: by the method.
    """
    data, config = context.data, context.config
    assert found.facts.keys() <= SearchInfo.model_fields.keys()
    made_by: dict[str, Any] = {**code()}
    info = SearchInfo(
        method=config.method,
        model=context.spec,
        frozen=dict(context.refuted.frozen),
        no_wider=dict(context.refuted.no_wider),
        needed=dict(context.refuted.needed or {}),
        config=config,
        budget=str(budget),
        device=str(data.device),
        seed=context.seed,
        **found.facts,
        dataset=data.info.dataset,
        split_fingerprint=data.info.fingerprint,
        pfs_version=pfs_core.__version__,
        **made_by,
        seconds=sum(stage.seconds for stage in found.cost.values()),
        cost=dict(found.cost),
        peak_memory_mib=peak_memory(data.device),
    )
    with publish(out, "search") as folder:
        save_file(dict(found.gates), folder / "gates.safetensors")
        if found.trained:
            save_trained(folder, found.trained)
        pq.write_table(_table(found.history), folder / "history.parquet")
        if found.pretraining:
            pq.write_table(_table(found.pretraining), folder / PRETRAINING)
        info.save(folder / "search.json")
    logger.info(f"search {context.spec.name}  {info.seconds:.0f} s  {memory_text(info.peak_memory_mib)}")
    return info


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


def search_info(folder: str | Path) -> SearchInfo:
    """Return the content of ``search.json`` in a ``gates`` folder.

    Raises:
        UserError: the folder is not one.
    """
    return SearchInfo.load(require_result(folder, "search", "pfs search --model M --split DIR OUT") / "search.json")


def load_gates(folder: str | Path) -> tuple[dict[str, Tensor], SearchInfo]:
    """Return the gates of each group, float32 [gates], and the content of ``search.json``.

    Raises:
        UserError: the folder is not a ``gates`` folder.
    """
    info = search_info(folder)
    return load_file(Path(folder) / "gates.safetensors"), info
