"""``pfs run`` looks at its disk and at MLflow before it starts anything."""

import shutil

import pytest
from pfs_pipelines.local import check_disk, check_mlflow

from pfs_core.errors import UserError
from tests.servers import free_port, mlflow_server


def test_a_full_disk_is_known_first(tmp_path, monkeypatch):
    check_disk(tmp_path / "not" / "there" / "yet")
    full = shutil._ntuple_diskusage(100 * 2**30, 100 * 2**30 - 2**20, 2**20)
    monkeypatch.setattr("pfs_pipelines.local.shutil.disk_usage", lambda place: full)
    with pytest.raises(UserError, match=f"{tmp_path} has 0.0 GiB left"):
        check_disk(tmp_path / "not" / "there" / "yet")


def test_an_mlflow_that_does_not_answer_is_known_first():
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:\d+ does not answer .*refused") as refused:
        check_mlflow(f"http://user:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(refused.value)


def test_one_that_answers_or_is_a_file_is_right(tmp_path):
    check_mlflow("")
    check_mlflow(f"sqlite:///{tmp_path}/mlflow.db")
    port = free_port()
    with mlflow_server(tmp_path, port=port):
        check_mlflow(f"http://127.0.0.1:{port}/")
