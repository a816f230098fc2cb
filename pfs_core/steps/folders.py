"""What a step reads from the folders of other steps, for itself and for MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from pfs_core.errors import UserError

if TYPE_CHECKING:
    from pfs_core.data.split_info import SplitInfo
    from pfs_core.structure import Structure


def about(structure: "Structure") -> dict[str, str]:
    """What a run on a structure is about (:func:`pfs_core.tracking.runs.tags_of`)."""
    return {
        "model": structure.model.name,
        "budget": str(structure.target_budget),
        "method": structure.chosen_by["method"],
    }


def confusion(model_dir: str | Path) -> tuple[list[str], list[list[int]]]:
    """The names of the classes, and the counts [true class][predicted class], of a ``model`` folder."""
    from pfs_core.training.metrics import TrainingMetrics

    metrics = TrainingMetrics.load(Path(model_dir) / "metrics.json")
    return metrics.class_names, metrics.confusion_matrix


def split_info(split_dir: str | Path) -> "SplitInfo":
    """The content of ``split.json`` in a ``split`` folder."""
    from pfs_core.data.split_info import SplitInfo
    from pfs_core.storage.artifacts import require_result

    return SplitInfo.load(require_result(split_dir, "split", "pfs split DATASET OUT") / "split.json")


def structure_file(structures_dir: str | Path, network: str) -> Path:
    """The structure file of ``pruned``, ``uniform`` or ``dense`` in a ``structures`` folder."""
    from pfs_core.storage.artifacts import require_result
    from pfs_core.structure import FILES

    if network not in FILES:
        raise UserError(f"unknown network {network!r}; known: {', '.join(FILES)}")
    return require_result(structures_dir, "structure", "pfs extract --gates DIR OUT") / FILES[network]
