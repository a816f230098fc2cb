"""The ``gates`` folder, which the search of every method ends in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

import pfs_core
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.methods.context import SearchContext
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.device import memory_text, peak_memory
from pfs_core.runtime.environment import code
from pfs_core.runtime.progress import say
from pfs_core.storage.artifacts import publish, read_json, require_result, write_json
from pfs_core.structure.inherited_weights import save_trained

SCHEMA = "pfs.gates/1"
PRETRAINING = "pretraining.parquet"


def write_gates(out: str | Path, context: SearchContext, budget: Budget, found: MethodResult) -> dict[str, Any]:
    """Write ``gates.safetensors``, ``history.parquet`` and ``search.json``; returns the content of the last.

    ``pretraining.parquet`` is there too where there was such a training.

    Args:
        out: the folder.
        context: what the method started from.
        budget: that the user asked for.
        found: by the method.
    """
    data, config = context.data, context.config
    info = {
        "schema": SCHEMA,
        "method": config.method,
        "model": context.spec.model_dump(mode="json"),
        "recipe": config.model_dump(),
        "budget": str(budget),
        "device": str(data.device),
        "seed": context.seed,
        **found.facts,
        "split_fingerprint": data.info["fingerprint"],
        "pfs_version": pfs_core.__version__,
        **code(),
        "seconds": sum(stage["seconds"] for stage in found.cost.values()),
        "cost": found.cost,
        "peak_memory_mib": peak_memory(data.device),
    }
    with publish(out, "search") as folder:
        save_file(dict(found.gates), folder / "gates.safetensors")
        if found.trained:
            save_trained(folder, found.trained)
        pq.write_table(_table(found.history), folder / "history.parquet")
        if found.pretraining:
            pq.write_table(_table(found.pretraining), folder / PRETRAINING)
        write_json(folder / "search.json", info)
    say(f"search {context.spec.name}  {info['seconds']:.0f} s  {memory_text(info['peak_memory_mib'])}")
    return info


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


def load_gates(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The gates a group and the content of ``search.json``; UserError if ``folder`` is not a gates folder."""
    folder = require_result(folder, "search", "pfs search --model M --split DIR OUT")
    info = read_json(folder / "search.json")
    if info.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'search.json'} has schema {info.get('schema')!r}; expected {SCHEMA!r}")
    return load_file(folder / "gates.safetensors"), {"method": "pfs", "cost": {}, **info}  # older ones are all of pfs
