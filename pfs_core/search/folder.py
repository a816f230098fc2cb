"""The ``gates`` folder: what every way of choosing a structure ends in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

import pfs_core
from pfs_core.data import ImageSplit
from pfs_core.device import memory_text, peak_memory
from pfs_core.errors import UserError
from pfs_core.files import publish, read_json, require_result, write_json
from pfs_core.kept_weights import Trained, save_trained
from pfs_core.progress import say
from pfs_core.recipes import MethodRecipe
from pfs_core.search.start import Start
from pfs_core.spec import Budget

SCHEMA = "pfs.gates/1"


def write_gates(
    out: str | Path,
    start: Start,
    data: ImageSplit,
    budget: Budget,
    recipe: MethodRecipe,
    seed: int,
    gates: Mapping[str, Tensor],
    history: Sequence[Mapping[str, Any]],
    cost: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    trained: Trained | None = None,
) -> dict[str, Any]:
    """Write ``gates.safetensors``, ``history.parquet`` and ``search.json``; returns the content of the last.

    Args:
        out: the folder.
        start: what the search started from.
        data: the images.
        budget: what the structure will be cut to.
        recipe: of the method.
        seed: of the search.
        gates: ``{group: float32 [gates]}`` in [0, 1]; the largest will be kept.
        history: a row an epoch, evaluation or episode; may be empty.
        cost: :func:`pfs_core.spent.stage_cost` of each stage.
        facts: what else the method has to say, for ``search.json``.
        trained: the network that the method trained, for fine-tuning.
    """
    info = {
        "schema": SCHEMA,
        "method": recipe.method,
        "model": start.spec.model_dump(mode="json"),
        "recipe": recipe.model_dump(),
        "budget": str(budget),
        "device": str(data.device),
        "seed": seed,
        **facts,
        "split_fingerprint": data.info["fingerprint"],
        "pfs_version": pfs_core.__version__,
        "seconds": sum(stage["seconds"] for stage in cost.values()),
        "cost": cost,
        "peak_memory_mib": peak_memory(data.device),
    }
    with publish(out, "search") as folder:
        save_file(dict(gates), folder / "gates.safetensors")
        if trained:
            save_trained(folder, trained)
        pq.write_table(pa.Table.from_pylist([dict(row) for row in history]), folder / "history.parquet")
        write_json(folder / "search.json", info)
    say(f"search {start.spec.name}  {info['seconds']:.0f} s  {memory_text(info['peak_memory_mib'])}")
    return info


def load_gates(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The gates a group and the content of ``search.json``; UserError if ``folder`` is not a gates folder."""
    folder = require_result(folder, "search", "pfs search --model M --split DIR OUT")
    info = read_json(folder / "search.json")
    if info.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'search.json'} has schema {info.get('schema')!r}; expected {SCHEMA!r}")
    return load_file(folder / "gates.safetensors"), {"method": "pfs", "cost": {}, **info}  # older ones are all of pfs
