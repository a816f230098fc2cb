"""The folders of several budgets, methods or runs as results that can be compared."""

from collections.abc import Sequence
from pathlib import Path

from pfs_core.errors import UserError
from pfs_core.latency.results import LatencyResult
from pfs_core.methods.gates_folder import load_gates
from pfs_core.report.loading import load_results
from pfs_core.report.results import Results
from pfs_core.storage.artifacts import COMPLETE, require_result
from pfs_core.structure import Structure
from pfs_core.training.metrics import TrainingMetrics


def load_budgets(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dir: str | Path,
) -> list[Results]:
    """The results of every budget, the largest network first.

    Models and latencies find their structure by what they are of, whatever the order of the folders.

    Raises:
        UserError: a folder is missing, or no model or latency is of one of the structures.
    """
    out = []
    for folder, latency in zip(structures_dirs, _latencies(structures_dirs, latency_dirs), strict=True):
        structure = Path(folder) / "structure.json"
        models = [path for path in model_dirs if (Path(path) / "structure.json").read_bytes() == structure.read_bytes()]
        if not models or latency is None:
            raise UserError(f"{folder} has no trained and measured network; retrain and benchmark its structure.json")
        out.append(load_results(split_dir, gates_dir, folder, [models[0], dense_dir], latency))
    return sorted(out, key=lambda results: -results.structure.cost.macs)


def load_methods(
    split_dir: str | Path,
    gates_dirs: Sequence[str | Path],
    structures_dirs: Sequence[str | Path],
    model_dirs: Sequence[str | Path],
    latency_dirs: Sequence[str | Path],
    dense_dirs: Sequence[str | Path],
) -> list[Results]:
    """The results of every method, budget and seed, each beside the dense network of its seed.

    Gates, models and latencies find their structure by what they are of, whatever the order of the folders.

    Raises:
        UserError: a folder is missing, or something is of none of the structures.
    """
    searches = {}
    for path in gates_dirs:
        _, info = load_gates(path)
        searches[info.method, info.seed, info.budget] = path
    dense = {TrainingMetrics.load(Path(path) / "metrics.json").seed: path for path in dense_dirs}
    out = []
    for folder, latency in zip(structures_dirs, _latencies(structures_dirs, latency_dirs), strict=True):
        structure = Structure.load(Path(folder) / "structure.json")
        method, seed = structure.chosen_by["method"], structure.chosen_by["seed"]
        gates = searches.get((method, seed, str(structure.target_budget)))
        if gates is None or seed not in dense:
            raise UserError(
                f"{folder} is {method}, {structure.target_budget}, seed {seed}: "
                "its gates or the dense network of the seed are missing"
            )
        out += load_budgets(split_dir, gates, [folder], model_dirs, [latency] if latency else [], dense[seed])
    return out


def _latencies(structures_dirs: Sequence[str | Path], latency_dirs: Sequence[str | Path]) -> list[str | Path | None]:
    """The ``latency`` folder of each ``structures`` folder, None where there is none; no folder is that of two.

    Older folders do not say which structure they are of. Then its cost has to do, which several seeds may share.
    """
    left = {path: _measured(path) for path in latency_dirs}
    out: list[str | Path | None] = []
    for folder in structures_dirs:
        structures = require_result(folder, "structure", "pfs extract --gates DIR OUT")
        structure = Structure.load(structures / "structure.json")
        known = structure.digest, (structure.cost.macs, structure.cost.params)
        out.append(next((path for key in known for path, of in left.items() if of == key), None))
        left = {path: of for path, of in left.items() if path != out[-1]}
    return out


def _measured(latency_dir: str | Path) -> str | tuple[int, int] | None:
    """What the pruned network of a ``latency`` folder is known by: the digest of its structure, or its cost."""
    pruned = LatencyResult.load(Path(latency_dir) / "latency.json").models.get("pruned")
    return (pruned.structure or (pruned.macs, pruned.params)) if pruned else None


def finished(folder: str | Path) -> bool:
    """Whether the folder of a run has all results, the trained pruned network and the latencies among them."""
    needed = ("split", "gates", "structures", "model-pruned", "latency")
    return all((Path(folder) / name / COMPLETE).is_file() for name in needed)


def model_folders(folder: Path) -> list[Path]:
    """The ``model`` folders in the folder of a run, beside which a user may have files of such names."""
    return sorted(path for path in folder.glob("model-*") if path.is_dir())


def load_runs(folders: Sequence[str | Path]) -> list[Results]:
    """The results of finished runs of one network on one dataset, the largest network first.

    Raises:
        UserError: a folder is no finished run, or it is of another network or dataset than the first.
    """
    found = []
    for folder in map(Path, folders):
        split, gates, structures, latency = (folder / name for name in ("split", "gates", "structures", "latency"))
        found.append(load_results(split, gates, structures, model_folders(folder), latency))
        for what, of in (("network", _network), ("dataset", lambda results: results.split.dataset)):
            if of(found[-1]) != of(found[0]):
                raise UserError(f"{folder} is of the {what} {of(found[-1])}, {folders[0]} of {of(found[0])}")
    return sorted(found, key=lambda results: -results.structure.cost.macs)


def _network(results: Results) -> str:
    spec = results.spec
    return f"{spec.name} {spec.kwargs} for {'x'.join(map(str, spec.input_shape))}"
