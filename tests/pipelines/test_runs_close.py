"""``pfs runs close``: what a run that was ended by hand has left open in MLflow."""

import json
import shutil
import uuid
from functools import partialmethod
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from pfs_pipelines.cli import main
from pfs_pipelines.pools import LONGEST_HOURS

from pfs_core import steps
from pfs_core.config.request import CompressRequest
from pfs_core.tracking.leftover import leftovers

RECORDED = Path(__file__).parent / "recorded"
HOUR = 3_600_000


@pytest.fixture
def store(tmp_path, monkeypatch, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(uri)
    yield MlflowClient()
    mlflow.set_tracking_uri(None)


def left_open(client, pipeline, hours=1.0):
    """A run of a pipeline and that of its step, both open; their ids."""
    found = client.get_experiment_by_name("pfs-resnet20")
    experiment = found.experiment_id if found else client.create_experiment("pfs-resnet20")
    now = client.create_run(experiment).info.start_time
    tags = {"kfp.pipeline_run_id": pipeline}
    start = int(now - hours * HOUR)
    parent = client.create_run(experiment, start, {**tags, "pfs.step": "pipeline"}, run_name="resnet20").info.run_id
    step = {**tags, "pfs.step": "search", "mlflow.parentRunId": parent}
    return parent, client.create_run(experiment, start, step).info.run_id


def statuses(client, runs):
    return [client.get_run(run).info.status for run in runs]


@pytest.mark.parametrize(
    ("name", "status"),
    [("terminated-not-closed", "KILLED"), ("terminated-closed", "KILLED"), ("wrong-budget", "FAILED"),
     ("succeeded", "FINISHED"), ("plugin-injects-refused", "RUNNING"), ("schedule-deleted", "KILLED")],
)  # fmt: skip
def test_a_run_gets_the_status_that_kubeflow_tells(capsys, api, store, name, status):
    run = json.loads((RECORDED / f"{name}.json").read_text())["run"]
    api.recorded[run["run_id"]] = run
    runs = left_open(store, run["run_id"])
    assert not main(["runs", "close"])
    assert statuses(store, runs) == [status, status]
    said = capsys.readouterr().out
    assert said.startswith(f"resnet20: {status}" if status != "RUNNING" else "no run was left open")


def test_a_run_that_kubeflow_has_forgotten_is_closed_once_it_must_have_ended(api, store):
    young, old = (left_open(store, str(uuid.uuid4()), hours) for hours in (LONGEST_HOURS - 1, LONGEST_HOURS + 1))
    assert not main(["runs", "close"])
    assert statuses(store, (*young, *old)) == ["RUNNING", "RUNNING", "KILLED", "KILLED"]


def test_all_pages_of_experiments_and_runs_are_looked_at(api, store, monkeypatch):
    """A server that a company shares lists its newest 1,000 experiments first."""
    run = json.loads((RECORDED / "terminated-not-closed.json").read_text())["run"]
    api.recorded[run["run_id"]] = run
    runs = [left_open(store, str(uuid.uuid4())), left_open(store, run["run_id"])]
    for name in ("team-a", "team-b"):
        store.create_experiment(name)
    for listing in ("search_experiments", "search_runs"):
        monkeypatch.setattr(MlflowClient, listing, partialmethod(getattr(MlflowClient, listing), max_results=1))
    assert not main(["runs", "close"])
    assert [statuses(store, both) for both in runs] == [["RUNNING", "RUNNING"], ["KILLED", "KILLED"]]


def test_a_local_run_is_not_kubeflows(store):
    left_open(store, "resnet20-digits-macs0.5-seed0-20260101-000000")
    assert leftovers() == []


def test_a_kubeflow_that_fails_closes_nothing(capsys, api, store):
    runs = left_open(store, str(uuid.uuid4()))
    api.faults = [("GET /apis/v2beta1/runs/", 400)]
    assert main(["runs", "close"]) == 2
    assert statuses(store, runs) == ["RUNNING", "RUNNING"]


def test_a_token_that_is_not_valid_is_an_error(capsys, api, store):
    runs = left_open(store, str(uuid.uuid4()))
    api.faults = [("GET /apis/v2beta1/runs/", 401)]
    assert main(["runs", "close"]) == 2
    assert "needs credentials, or different ones (401)" in capsys.readouterr().err
    assert statuses(store, runs) == ["RUNNING", "RUNNING"]


def test_a_run_of_another_namespace_holds_up_nothing(capsys, api, store):
    run = json.loads((RECORDED / "wrong-budget.json").read_text())["run"]
    api.recorded[run["run_id"]] = run
    foreign, ours = left_open(store, str(uuid.uuid4()), 2), left_open(store, run["run_id"], 1)
    api.faults = [("GET /apis/v2beta1/runs/", 403)]
    assert not main(["runs", "close"])
    assert statuses(store, (*foreign, *ours)) == ["RUNNING", "RUNNING", "FAILED", "FAILED"]
    assert "left as they are: 1 that these credentials may not ask about" in capsys.readouterr().out


def test_without_an_mlflow_there_is_nothing_to_close(capsys, api, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["runs", "close"]) == 2
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().err


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x"])
def test_an_mlflow_that_does_not_answer_is_one_line(capsys, api, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["runs", "close"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pfs: {uri} does not answer as MLflow does")
    assert line.endswith("; check MLFLOW_TRACKING_URI")


REQUEST = CompressRequest.parse({"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"]}, "request")


def test_the_first_step_closes_what_earlier_runs_have_left_open(api, store, monkeypatch, caplog):
    earlier = json.loads((RECORDED / "terminated-not-closed.json").read_text())["run"]
    runs, mine = left_open(store, earlier["run_id"]), str(uuid.uuid4())
    api.recorded |= {earlier["run_id"]: earlier, mine: earlier | {"run_id": mine, "state": "RUNNING"}}
    monkeypatch.setenv("KFP_RUN_ID", mine)
    monkeypatch.setenv("_KFP_RUNTIME", "true")  # as in a component
    steps.check(REQUEST)
    assert statuses(store, runs) == ["KILLED", "KILLED"]
    assert f"resnet20: KILLED (Kubeflow's run {earlier['run_id']})" in caplog.text
    assert [found.pipeline for found in leftovers()] == [mine]


def test_a_first_step_that_cannot_ask_kubeflow_goes_on(api, store, monkeypatch, caplog):
    left_open(store, str(uuid.uuid4()))
    api.faults = [("GET /apis/v2beta1/healthz", 403)]
    monkeypatch.setenv("KFP_RUN_ID", str(uuid.uuid4()))
    steps.check(REQUEST)
    assert "runs that were left open in MLflow: pfs: " in caplog.text


def test_a_first_step_whose_token_is_not_valid_says_so(api, store, monkeypatch, caplog):
    left_open(store, str(uuid.uuid4()))
    api.faults = [("GET /apis/v2beta1/runs/", 401)]
    monkeypatch.setenv("KFP_RUN_ID", str(uuid.uuid4()))
    steps.check(REQUEST)
    assert "needs credentials, or different ones (401)" in caplog.text


@pytest.mark.parametrize(("state", "status"), [("CANCELING", "KILLED"), ("RUNNING", "FAILED")])
def test_the_last_step_of_a_run_that_somebody_is_ending_says_so(api, store, monkeypatch, state, status):
    """Seen live: the pod of a search is gone within a second, and the last step hears that the run has failed."""
    recorded = json.loads((RECORDED / "terminated-closed.json").read_text())["run"]
    api.recorded[recorded["run_id"]] = recorded | {"state": state}
    runs = left_open(store, recorded["run_id"])
    monkeypatch.setenv("KFP_RUN_ID", recorded["run_id"])
    steps.close("FAILED")
    assert statuses(store, runs) == [status, status]
