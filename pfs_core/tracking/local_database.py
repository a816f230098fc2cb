"""The database that ``pfs run`` makes for MLflow in its folder of runs."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from pfs_core.tracking.runs import experiment_id


def make_experiment(artifact_root: Path, model: str = "") -> None:
    """Create the experiment of a model in a local database, if it is missing, with its artifacts below a folder.

    The first one to ask makes the database too, and others wait for it meanwhile: MLflow would let each make the same
    tables. It is there once it is whole: MLflow goes no further in one whose making was interrupted.
    """
    import mlflow
    from sqlalchemy import make_url

    url = make_url(uri) if (uri := mlflow.get_tracking_uri()).startswith("sqlite") else None
    if url is None or url.database is None:
        return
    database = Path(url.database)
    with _alone(database):
        if not database.exists():
            _make(database, artifact_root)
        experiment_id(model, artifact_root.as_uri())


def _make(database: Path, artifact_root: Path) -> None:
    """Let MLflow make its tables in a file beside ``database``, which then gets that name."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = database.with_name(f".{database.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{aside.absolute()}", artifact_root.as_uri()).engine.dispose()
    aside.rename(database)


@contextlib.contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Let one process at a time be in this block, of all that name the same database."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
