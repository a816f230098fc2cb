"""A step whose tracking server goes away, comes back, never answers or refuses: with real servers."""

import contextlib
import os
import shutil
import socket
import threading
import time

import mlflow
import pytest
from botocore.exceptions import NoCredentialsError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from pfs_core import tracking
from pfs_core.errors import AccessDeniedError, InvalidError, UserError
from pfs_core.tracking import answers, outbox, step
from pfs_core.tracking.refused import switch_off_if_refused
from tests.servers import answering, free_port, mlflow_server


class Server:
    """An MLflow server on one port and one database that is stopped and started again."""

    def __init__(self, folder):
        self.folder, self.port, self.stack = folder, free_port(), contextlib.ExitStack()
        self.running = False

    def start(self):
        if not self.running:
            self.stack.enter_context(mlflow_server(self.folder, port=self.port))
        self.running = True

    def stop(self):
        self.stack.close()
        self.running = False


@pytest.fixture(scope="module")
def a_server(tmp_path_factory, empty_store):
    server = Server(tmp_path_factory.mktemp("mlflow"))
    shutil.copy(empty_store, server.folder)
    yield server
    server.stop()


@pytest.fixture
def at(monkeypatch):
    """Points the environment to a port, as a step of a pipeline of its own; no waiting between tries."""

    def point(port, run_id):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hidden@127.0.0.1:{port}")
        monkeypatch.setenv("KFP_RUN_ID", run_id)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "SHARE", 0)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(outbox, "LAST_EFFORT_SECONDS", 0.3)
    yield point
    mlflow.set_tracking_uri(None)


@pytest.fixture
def server(a_server, at):
    a_server.start()
    at(a_server.port, f"run-{time.monotonic_ns()}")
    return a_server


def lines(capsys):
    """What was said of MLflow; the login that is part of the server's address is never printed."""
    said = capsys.readouterr()
    assert "hidden" not in said.out + said.err
    return [line for line in said.out.splitlines() if "MLflow" in line]


def rows(*epochs):
    return [{"epoch": epoch, "loss": 1 / epoch, "accuracy": epoch / 10} for epoch in epochs]


def test_a_server_that_comes_back_has_the_whole_curves(server, capsys, tmp_path):
    (tmp_path / "gates.json").write_text("{}")
    with tracking.step_run("search", {"search.lr": 0.1}, "resnet20") as run:
        for row in rows(1, 2):
            run.row(row)
        server.stop()
        for row in rows(3, 4):
            run.row(row)
        run.params({"search.kept": 4})
        run.artifact(tmp_path / "gates.json", "gates")
        before = time.time() * 1000
        server.start()
        for row in rows(5):
            run.row(row)
    client = MlflowClient()
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"search.lr": "0.1", "search.kept": "4"}
    assert [file.path for file in client.list_artifacts(run.id, "gates")] == ["gates/gates.json"]
    for name, value in (("loss", lambda e: 1 / e), ("accuracy", lambda e: e / 10)):
        history = client.get_metric_history(run.id, name)
        assert [(p.step, p.value) for p in history] == [(e, pytest.approx(value(e))) for e in (1, 2, 3, 4, 5)]
        assert [p.timestamp < before for p in history] == [True, True, True, True, False]
    assert lines(capsys) == []


def test_an_answer_that_is_lost_makes_no_point_twice(server, monkeypatch):
    log_batch, lost = MlflowClient.log_batch, []

    def lose_the_first(self, *args, **kwargs):
        log_batch(self, *args, **kwargs)
        if kwargs.get("metrics") and not lost:
            lost.append(True)
            raise ConnectionError

    monkeypatch.setattr(MlflowClient, "log_batch", lose_the_first)
    with tracking.step_run("search") as run:
        for row in rows(1, 2):
            run.row(row)
    assert lost
    assert [p.step for p in MlflowClient().get_metric_history(run.id, "loss")] == [1, 2]


def test_a_run_deleted_meanwhile_is_said_once_and_stops_nothing(server, capsys):
    with tracking.step_run("search") as run:
        MlflowClient().delete_run(run.id)
        for row in rows(1, 2, 3):
            run.row(row)
    assert sum("does not accept metrics" in line for line in lines(capsys)) == 1


def test_a_run_that_cannot_be_opened_is_opened_later_with_its_start(server, monkeypatch):
    create, failed = MlflowClient.create_run, []

    def answer_lost(self, *args, **kwargs):
        run = create(self, *args, **kwargs)
        if not failed:
            failed.append(run.info.run_id)
            raise ConnectionError
        return run

    monkeypatch.delenv("KFP_RUN_ID")
    monkeypatch.setattr(MlflowClient, "create_run", answer_lost)
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 60.0)
    before = time.time() * 1000
    with tracking.step_run("search") as run:
        assert run.id == ""
        entered = time.time() * 1000
        run.row(rows(1)[0])
    assert [run.id] == failed  # the one whose answer was lost, not a second one
    found = MlflowClient().get_run(run.id)
    assert before - 1 <= found.info.start_time <= entered
    assert found.data.metrics["loss"] == 1.0


def test_a_server_that_stays_away_costs_one_line(server, capsys, tmp_path):
    (tmp_path / "gates.json").write_text("{}")
    with tracking.step_run("search") as run:
        server.stop()
        for row in rows(1, 2, 3):
            run.row(row)
        run.artifact(tmp_path / "gates.json")
    (line,) = lines(capsys)
    assert "6 points of curves" in line
    assert "gates.json" in line
    assert "hidden" not in line


def test_a_server_that_is_away_from_the_start_costs_a_line_a_step(at, capsys):
    at(free_port(), "never")
    assert tracking.open_pipeline("resnet20 macs=0.5 seed 0", {"model": "resnet20"}) == ""
    with tracking.step_run("report", {"report.a": 1}) as run:
        assert run.model(None, None, "pfs-resnet20") == ""
        assert run.url == ""
    tracking.close_pipeline(succeeded=True)
    first, second, third = lines(capsys)
    assert "the pipeline's run" in first
    assert "the network pfs-resnet20" in second
    assert "how the pipeline ended" in third


def test_a_server_that_never_answers_is_asked_a_few_times_only(at, capsys, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 60.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    accepted, connections = [], []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listening.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        at(listening.getsockname()[1], "hangs")
        with tracking.step_run("search") as run:
            for epoch in range(1, 201):
                run.row({"epoch": epoch, "loss": 1.0})
            accepted.append(len(connections))
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()
    assert accepted == [1]  # when the run was opened
    assert len(connections) == 2  # and at the end
    (line,) = lines(capsys)
    assert "200 points of curves" in line


def test_the_step_fails_as_it_would_without_tracking(at, capsys, monkeypatch):
    monkeypatch.setattr(step, "FAILED_EFFORT_SECONDS", 0.1)
    at(free_port(), "fails")
    with pytest.raises(RuntimeError, match="out of memory"), tracking.step_run("search") as run:
        run.row(rows(1)[0])
        raise RuntimeError("out of memory")
    assert "that the run failed" in lines(capsys)[0]


def test_requests_are_brief_while_a_step_runs_unless_the_user_says_otherwise(at, monkeypatch):
    at(free_port(), "brief")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with tracking.step_run("search"):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_what_the_server_refuses_at_the_start_is_the_users_mistake(store):
    experiment = MlflowClient().create_experiment("pfs-resnet20")
    MlflowClient().delete_experiment(experiment)
    with pytest.raises(InvalidError, match="refuses the run"):
        tracking.open_pipeline("resnet20", {}, {"model": "resnet20"})


def test_what_is_no_address_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@[::1")
    with pytest.raises(UserError, match="is no address") as refused, tracking.step_run("search"):
        pass
    assert "hidden" not in str(refused.value)


def test_a_parameter_that_has_another_value_keeps_it_and_the_rest_is_logged(store, capsys):
    with tracking.step_run("report") as run:
        run.params({"report.model": "a/1"})
        run.params({"report.model": "a/2", "report.more": 3})
    assert MlflowClient().get_run(run.id).data.params == {"report.model": "a/1", "report.more": "3"}
    assert "keeps the parameter report.model" in lines(capsys)[0]


def test_settings_in_another_order_are_the_same_parameter(store, capsys):
    with tracking.step_run("report") as run:
        for settings in ({"b": 1, "a": {"d": 2, "c": 3}}, {"a": {"c": 3, "d": 2}, "b": 1}):
            run.params({"settings": settings})
    assert MlflowClient().get_run(run.id).data.params == {"settings": "{'a': {'c': 3, 'd': 2}, 'b': 1}"}
    assert lines(capsys) == []


@pytest.mark.parametrize("run_id", ["", "a1b2"])
@pytest.mark.parametrize(("status", "off"), [(401, True), (403, True), (404, True), (200, True), (503, False)])
def test_a_node_of_a_train_job_that_is_refused_trains_without_mlflow(monkeypatch, at, caplog, run_id, status, off):
    """The login of Kubeflow's MLflow plugin cannot be passed on to it, and every restart would fail again."""
    with answering(status) as port:
        at(port, "refused")
        if run_id:
            monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        switch_off_if_refused()
    assert ("MLFLOW_TRACKING_URI" not in os.environ) == off
    assert "MLFLOW_RUN_ID" not in os.environ or not off
    assert ("does not let this process log" in caplog.text) == off
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(("status", "off"), [(401, True), (403, True), (404, True), (429, False), (502, False)])
def test_a_gateway_with_json_of_its_own_refuses_by_its_status(at, caplog, status, off):
    """MLflow's client takes JSON without a code of MLflow's for a server that fails."""
    with answering(status, b'{"message": "who are you?"}') as port:
        at(port, "gateway")
        switch_off_if_refused()
    assert ("MLFLOW_TRACKING_URI" not in os.environ) == off
    assert ("does not let this process log" in caplog.text) == off


def test_a_node_of_a_train_job_that_is_let_in_logs(server, at):
    at(server.port, "let-in")
    switch_off_if_refused()
    assert "MLFLOW_TRACKING_URI" in os.environ


def test_a_login_that_is_refused_at_the_start_is_the_users_mistake(at):
    with answering(401) as port:
        at(port, "refused")
        with (
            pytest.raises(AccessDeniedError, match="not authenticated.*check address, login") as error,
            tracking.step_run("a"),
        ):
            raise AssertionError("the step began")
    assert "hidden" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_login_page_at_the_start_is_the_users_mistake(at):
    """A proxy in front of MLflow shows it in place of every answer, with 200."""
    with answering(200) as port:
        at(port, "page")
        said = "refuses the run \\(it answers with a web page, perhaps a login\\); check address, login"
        with pytest.raises(AccessDeniedError, match=said) as error, tracking.step_run("a"):
            raise AssertionError("the step began")
        with pytest.raises(AccessDeniedError, match=said):
            tracking.open_pipeline("a", {})
    assert "hidden" not in str(error.value)


def test_a_login_page_later_is_waited_out(server, capsys):
    with tracking.step_run("search") as run:
        run.metrics({"loss": 1.0}, step=1)
        address = os.environ["MLFLOW_TRACKING_URI"]
        with answering(200) as port:
            mlflow.set_tracking_uri(f"http://me:hidden@127.0.0.1:{port}")
            run.metrics({"loss": 2.0}, step=2)
        mlflow.set_tracking_uri(address)
    assert [p.value for p in MlflowClient().get_metric_history(run.id, "loss")] == [1.0, 2.0]
    assert not lines(capsys)


@pytest.fixture
def no_storing(monkeypatch):
    """An artifact store without a login, on a server that answers; how often it was asked."""
    asked = []

    def refuse(self, *args, **kwargs):
        asked.append(args)
        raise NoCredentialsError

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    monkeypatch.setattr("pfs_core.tracking.model.log_model", refuse)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.05)
    return asked


def test_an_artifact_store_that_takes_nothing_holds_nothing_else_up(store, no_storing, capsys, tmp_path):
    (tmp_path / "gates.json").write_text("{}")
    with tracking.step_run("search") as run:
        run.artifact(tmp_path / "gates.json")
        run.metrics({"loss": 0.5}, step=1)
        assert MlflowClient().get_run(run.id).data.metrics == {"loss": 0.5}
    found = MlflowClient().get_run(run.id)
    assert found.info.status == "FINISHED"
    assert len(no_storing) == outbox.STORE_TRIES
    (line,) = lines(capsys)
    assert "gates.json: the artifact store" in line
    assert "does not accept it (NoCredentialsError" in line


def test_a_network_that_cannot_be_stored_has_no_version_and_ends_nothing(store, no_storing, capsys):
    with tracking.step_run("report") as run:
        assert run.model(None, None, "pfs-resnet20") == ""
    assert MlflowClient().get_run(run.id).info.status == "FINISHED"
    assert "the network pfs-resnet20" in lines(capsys)[0]


def test_a_network_whose_name_is_refused_has_no_version_and_ends_nothing(store, monkeypatch, capsys):
    monkeypatch.setattr("pfs_core.tracking.model.log_model", lambda *a: MlflowClient().create_registered_model("a/b"))
    with tracking.step_run("report") as run:
        assert run.model(None, None, "a/b") == ""
        run.metrics({"macs": 3})
    found = MlflowClient().get_run(run.id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"macs": 3.0})
    assert "does not accept the network a/b" in lines(capsys)[0]


def test_an_error_that_nobody_knows_leaves_out_what_it_was_about(store, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("the SDK of another cloud")

    with tracking.step_run("search") as run, monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", fail)
        run.dataset("digits", "0123", "split")
    assert MlflowClient().get_run(run.id).info.status == "FINISHED"
    assert "does not accept the dataset: RuntimeError: the SDK of another cloud" in lines(capsys)[0]


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"])
def test_what_a_server_cannot_do_now_waits(code):
    error = MlflowException("later", error_code=ErrorCode.Value(code))
    assert answers.unsent(error)
    assert not answers.refusal(error)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_login_that_is_refused_waits_once_the_step_is_under_way(code):
    error = MlflowException("who are you", error_code=ErrorCode.Value(code))
    assert answers.unsent(error)
    assert answers.refusal(error)


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"])
def test_a_mistake_is_no_outage(code):
    error = MlflowException("no", error_code=ErrorCode.Value(code))
    assert not answers.unsent(error)
    assert answers.refusal(error) == "MlflowException: no"


def test_an_error_of_our_own_is_neither():
    assert not answers.unsent(TypeError("a bug"))
    assert not answers.refusal(TypeError("a bug"))
