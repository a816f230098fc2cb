"""The database that ``pfs run`` makes for MLflow in its folder of runs."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from pfs_core.tracking.runs import experiment_id

_SQLITE = "sqlite:///"


def make_experiment(artifact_root: Path, model: str = "") -> None:
    """Create the experiment of a model in a local database, if it is missing, with its artifacts below a folder.

    The first one to ask makes the database too, and others wait for it meanwhile: MLflow would let each make the same
    tables.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    if uri.startswith(_SQLITE):
        with _alone(Path(uri.removeprefix(_SQLITE))):
            experiment_id(model, artifact_root.as_uri())


@contextlib.contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Let one process at a time be in this block, of all that name the same database."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
