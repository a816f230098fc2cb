"""A run in MLflow ends as its steps did, in the words of kfp.local and in those of Kubeflow's driver."""

import shutil
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient
from pfs_components import close_run

from pfs_core import steps, tracking
from pfs_core.registry import work


@pytest.fixture
def parent(tmp_path, monkeypatch, empty_store):
    """A pipeline's run that has context; its id."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    mlflow.set_tracking_uri(None)
    yield tracking.open_pipeline("resnet20", {})
    mlflow.set_tracking_uri(None)


def closed(parent, state, gives_back=False):
    """The status of the run after its pipeline ended in this state."""
    close_run.python_func(SimpleNamespace(state=state), gives_back=gives_back)
    return MlflowClient().get_run(parent).info.status


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE"])
def test_what_succeeded_is_finished(parent, state):
    assert closed(parent, state) == "FINISHED"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "UNKNOWN", ""])
def test_what_failed_stays_failed_whatever_its_last_step_did(parent, state):
    tracking.mark_finished()
    assert closed(parent, state) == "FAILED"


def test_where_the_driver_lost_count_the_last_step_decides(parent):
    tracking.mark_finished()
    assert closed(parent, "RUNNING") == "FINISHED"


def test_where_the_driver_lost_count_and_no_last_step_was_done_the_run_failed(parent):
    assert closed(parent, "RUNNING") == "FAILED"


@pytest.mark.parametrize(("left", "status"), [(0, "FINISHED"), (1, "FAILED")])
def test_requests_that_are_left_over_decide_too(parent, monkeypatch, left, status):
    monkeypatch.setattr(work, "find", lambda limit, hours, check: [])
    monkeypatch.setattr(work, "give_back", lambda reason: left)
    steps.find_requests(5, 1)
    assert closed(parent, "RUNNING", gives_back=True) == status


def test_a_registry_that_fails_does_not_keep_the_run_open(parent, monkeypatch):
    monkeypatch.setattr(work, "give_back", lambda reason: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        closed(parent, "FAILED", gives_back=True)
    assert MlflowClient().get_run(parent).info.status == "FAILED"
