"""The id of a local run, by which its steps find each other in MLflow."""

from types import SimpleNamespace

import pytest
from pfs_pipelines import run_folders
from pfs_pipelines.run import environment, run_pipeline

from pfs_core.config.request import CompressRequest
from pfs_core.storage.artifacts import read_json, write_json

ASKED = CompressRequest(model="resnet20", dataset="digits", budgets=["macs=0.5"])


@pytest.fixture
def ids(monkeypatch):
    """The id and the folder of every run that is started; each of them is stopped when it has begun."""
    found = []

    def begin(run, env, log):
        (run.parent / "steps").mkdir(exist_ok=True)
        found.append((env["KFP_RUN_ID"], run.parent.name))
        return 1, ""

    monkeypatch.setattr("pfs_pipelines.run.follow", begin)
    monkeypatch.setattr(run_folders, "time", SimpleNamespace(strftime=lambda _: "20260101-000000"))
    return found


def test_the_same_request_in_the_same_second_in_two_folders_of_runs_is_two_runs_that_each_go_on(tmp_path, ids):
    for store in ("one", "other", "one", "other"):
        run_pipeline(ASKED, tmp_path / store)
    one, other, *again = ids
    assert one[1] == other[1]
    assert one[0] != other[0]
    assert again == [one, other]


def test_a_run_that_was_begun_before_there_were_ids_goes_on_by_its_name(tmp_path, ids):
    run_pipeline(ASKED, tmp_path)
    begun = tmp_path / ids[0][1] / "run.json"
    write_json(begun, {key: value for key, value in read_json(begun).items() if key != "id"})
    run_pipeline(ASKED, tmp_path)
    assert ids[1] == (ids[0][1], ids[0][1])


def test_a_run_that_mlflow_has_begun_for_the_caller_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert "MLFLOW_RUN_ID" not in environment(tmp_path, "id")
