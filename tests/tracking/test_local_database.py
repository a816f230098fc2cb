"""Runs share the database that the first of them makes, be they started at once, or after one that was killed."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store as mlflow_store
import pytest
from mlflow import MlflowClient

from pfs_core.tracking import make_experiment

AT_ONCE = """
import sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from pfs_core.tracking import make_experiment
print("ready", flush=True)
sys.stdin.readline()
make_experiment(Path("artifacts").absolute(), sys.argv[1])
"""


def test_two_that_need_the_same_new_database_at_once_both_have_it(tmp_path):
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    both = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE, model], cwd=tmp_path, env=env, text=True, **pipes)
        for model in ("resnet20", "vgg11")
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends


def test_one_that_was_killed_while_it_made_the_database_leaves_none(tmp_path, monkeypatch):
    database, make = tmp_path / "runs" / "mlflow.db", mlflow_store.SqlAlchemyStore
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")

    def killed(uri, root):
        half = Path(uri.removeprefix("sqlite:///"))
        with sqlite3.connect(half) as tables:
            tables.execute("create table _alembic_tmp_experiments (id integer)")
        half.with_name(f"{half.name}-journal").write_bytes(b"what was not written yet")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_store, "SqlAlchemyStore", killed)
    with pytest.raises(KeyboardInterrupt):
        make_experiment(tmp_path / "artifacts")
    assert not database.exists()
    monkeypatch.setattr(mlflow_store, "SqlAlchemyStore", make)
    make_experiment(tmp_path / "artifacts", "vgg11")
    found = MlflowClient(f"sqlite:///{database}").get_experiment_by_name("pfs-vgg11")
    assert found.artifact_location == (tmp_path / "artifacts").as_uri()
    assert sorted(path.name for path in database.parent.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
