"""The folders of one pipeline run as its results."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.latency.model import LatencyModel
from pfs_core.latency.results import LatencyResult
from pfs_core.methods.gates_folder import PRETRAINING, load_gates
from pfs_core.report.results import Results
from pfs_core.runtime.cost import seconds_of
from pfs_core.storage.artifacts import read_json, require_result
from pfs_core.structure import FILES, Structure
from pfs_core.training.metrics import TrainingMetrics


def load_results(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dir: str | Path,
    model_dirs: Sequence[str | Path],
    latency_dir: str | Path,
) -> Results:
    """Read the folders of one pipeline run.

    Raises:
        UserError: a folder is missing or of another run, or no model is the pruned one.
    """
    split_dir = require_result(split_dir, "split", "pfs split DATASET OUT")
    split = SplitInfo.load(split_dir / "split.json")
    gates, search = load_gates(gates_dir)
    structures_dir = require_result(structures_dir, "structure", "pfs extract --gates DIR OUT")
    structures = {name: Structure.load(structures_dir / file) for name, file in FILES.items()}
    metrics, histories, folders = {}, {}, {}
    for path in model_dirs:
        folder = require_result(path, "metrics", "pfs retrain --structure FILE --split DIR OUT")
        trained = TrainingMetrics.load(folder / "metrics.json")
        if Structure.load(folder / "structure.json").widths != structures[trained.network].widths:
            raise UserError(f"{folder} was trained for another structure than {structures_dir} has; retrain it")
        if trained.split_fingerprint != split.fingerprint:
            raise UserError(f"{folder} was trained on another dataset than {split_dir} is of; retrain it")
        metrics[trained.network], folders[trained.network] = trained, folder
        histories[trained.network] = _table(folder / "history.parquet")
    latency_dir = require_result(latency_dir, "latency", "pfs benchmark --structure FILE OUT")
    latency = _load_latency(latency_dir, structures)
    if "pruned" not in metrics or "pruned" not in latency.models:
        raise UserError("the run has no trained and measured pruned network; retrain and benchmark structure.json")
    return Results(
        split=split,
        split_seconds=seconds_of(split_dir),
        search=search,
        search_history=_table(Path(gates_dir) / "history.parquet"),
        pretraining=_table(Path(gates_dir) / PRETRAINING),
        gates=gates,
        structures=structures,
        extract_seconds=seconds_of(structures_dir),
        latency_model=_latency_model(structures_dir / "latency_model.json"),
        metrics=metrics,
        histories=histories,
        latency=latency,
        samples_table=_table(latency_dir / "samples.parquet"),
        model_dir=folders["pruned"],
    )


def _load_latency(folder: Path, structures: dict[str, Structure]) -> LatencyResult:
    """The latencies; UserError if they are of other structures.

    The networks beside the pruned one may come from another folder of structures, so that their cost has to do.
    """
    latency = LatencyResult.load(folder / "latency.json")
    for network, size in latency.models.items():
        if (structure := structures.get(network)) is None:
            continue
        cost = structure.cost
        other = network == "pruned" and size.structure not in (None, structure.digest)
        if other or (size.macs, size.params) != (cost.macs, cost.params):
            raise UserError(f"{folder} was measured on another {network} structure; benchmark it again")
    return latency


def _latency_model(path: Path) -> LatencyModel | None:
    return LatencyModel.parse(read_json(path), str(path)) if path.exists() else None


def _table(path: Path) -> pd.DataFrame:
    """A Parquet file; without rows and columns where there is none."""
    return pq.read_table(path).to_pandas() if path.exists() else pd.DataFrame()
