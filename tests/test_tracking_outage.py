"""A tracking server that goes away costs a step nothing, and its curves as little as can be."""

import socket
import time

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core import outbox, tracking
from pfs_core.outbox import Outbox
from tests.servers import free_port, mlflow_server


@pytest.fixture
def port(monkeypatch):
    """A port for the server, which the environment names; steps ask it again at once, and wait a second for it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 1.0)
    mlflow.set_tracking_uri(address)
    yield port
    mlflow.set_tracking_uri(None)


def epochs(run, numbers):
    for epoch in numbers:
        run.row({"epoch": epoch, "loss": 1.0 / epoch})


def found():
    """The run of the step."""
    (run,) = MlflowClient().search_runs(["1"], "tags.`pfs.step` = 'retrain'")
    return run


def curve(run):
    return [(p.step, p.value) for p in MlflowClient().get_metric_history(run.info.run_id, "loss")]


def test_a_server_that_is_killed_and_started_again_has_whole_curves(port, tmp_path, capsys):
    with mlflow_server(tmp_path, port=port):
        step = tracking.step_run("retrain", {"retrain.lr": 0.1})
        run = step.__enter__()
        epochs(run, (1, 2, 3))
    epochs(run, (4, 5, 6))
    (tmp_path / "model.txt").write_text("weights")
    run.artifact(tmp_path / "model.txt", "model")
    assert capsys.readouterr().out.count("MLflow does not answer") == 1
    with mlflow_server(tmp_path, port=port):
        epochs(run, (7, 8, 9))
        step.__exit__(None, None, None)
        done = found()
        assert done.info.status == "FINISHED"
        assert done.data.params == {"retrain.lr": "0.1"}
        assert curve(done) == [(epoch, 1.0 / epoch) for epoch in range(1, 10)]
        assert [file.path for file in MlflowClient().list_artifacts(done.info.run_id, "model")] == ["model/model.txt"]
    assert "were not sent" not in capsys.readouterr().out


def test_a_server_that_comes_late_has_the_run_from_its_start(port, tmp_path):
    before = time.time()
    step = tracking.step_run("retrain")
    run = step.__enter__()
    epochs(run, (1, 2))
    late = time.time()
    with mlflow_server(tmp_path, port=port):
        epochs(run, (3,))
        step.__exit__(None, None, None)
        done = found()
        assert curve(done) == [(epoch, 1.0 / epoch) for epoch in (1, 2, 3)]
        assert before - 1 <= done.info.start_time / 1000 <= late + 1
        assert done.data.tags["mlflow.parentRunId"] == tracking.pipeline_run("1", "run-1")


def test_a_server_that_stays_away_costs_a_line(port, capsys):
    with tracking.step_run("retrain", {"retrain.lr": 0.1}) as run:
        epochs(run, (1, 2, 3))
        assert run.model(None, None, "name") == ""
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert "MLflow is away; 7 messages were not sent to it: the run, parameters, points of curves, the model" in said


def test_the_pipelines_run_can_wait_too(port, capsys):
    assert tracking.open_pipeline("resnet20 macs=0.5", {"budget": "macs=0.5"}) == ""
    tracking.close_pipeline(succeeded=True)
    assert capsys.readouterr().out.count("MLflow does not answer; the pipeline goes on") == 2


def test_a_server_that_never_answers_costs_a_line(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 1.0)
        mlflow.set_tracking_uri(None)
        with tracking.step_run("retrain") as run:
            epochs(run, range(1, 50))
    assert "MLflow is away" in capsys.readouterr().out


class AwayError(Exception):
    """What a client raises for a server that is away."""


@pytest.fixture
def box(monkeypatch):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.0)
    return Outbox(lambda error: isinstance(error, AwayError), "the server")


def test_calls_are_made_in_order_whatever_fails(box):
    made, plan = [], iter([True, False, False, True, False])

    def call(number):
        if next(plan, False):
            raise AwayError
        made.append(number)

    for number in range(6):
        box.send("numbers", lambda number=number: call(number))
    box.close()
    assert made == list(range(6))


def test_what_is_refused_is_said_and_does_not_hold_up_the_rest(box, capsys):
    def refuse():
        raise ValueError("no such run")

    assert box.send("a point", refuse) is None
    assert box.send("another", lambda: 7) == 7
    assert capsys.readouterr().out == "the server refused a point: no such run\n"


def test_a_server_that_is_away_is_left_alone_for_a_while(box, monkeypatch):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 1000.0)
    calls = []

    def call():
        calls.append(1)
        raise AwayError

    for _ in range(5):
        box.send("a point", call)
    assert len(calls) == 1
