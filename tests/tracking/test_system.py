"""The curves of the machine: on for steps that ask for them, the user's word first, and back after an outage."""

import threading
import time

import pytest
from mlflow import MlflowClient

from pfs_core import tracking

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.delenv(SWITCH, raising=False)


def monitors():
    return [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def curve(run):
    """The steps of a curve of the machine, once it has one more point than before."""
    end, before = time.monotonic() + 30, -1
    while time.monotonic() < end:
        steps = [point.step for point in MlflowClient().get_metric_history(run.id, "system/cpu_utilization_percentage")]
        if 0 <= before < len(steps):
            return steps
        before = len(steps)
        time.sleep(0.1)
    raise TimeoutError


def test_a_watched_step_has_the_curves_of_the_machine(store):
    with tracking.step_run("search", watch=True) as run:
        assert curve(run)
    assert monitors() == []
    assert MlflowClient().get_run(run.id).info.status == "FINISHED"


@pytest.mark.parametrize(("switch", "watch", "expected"), [("false", True, 0), ("true", False, 1), (None, False, 0)])
def test_the_user_decides_before_the_step(store, monkeypatch, switch, watch, expected):
    if switch:
        monkeypatch.setenv(SWITCH, switch)
    with tracking.step_run("extract", watch=watch) as run:
        run.params({"extract.a": 1})
        assert len(monitors()) == expected


def test_a_monitor_that_an_outage_ended_goes_on_after_it(store, monkeypatch):
    get_run = MlflowClient.get_run

    def away(self, run_id):
        if threading.current_thread() in monitors():
            raise ConnectionError
        return get_run(self, run_id)

    with tracking.step_run("search", watch=True) as run:
        before = curve(run)
        monkeypatch.setattr(MlflowClient, "get_run", away)
        for thread in monitors():
            thread.join()
        monkeypatch.setattr(MlflowClient, "get_run", get_run)
        run.row({"epoch": 1, "loss": 1.0})  # a call that the server answers
        after = curve(run)
    assert len(after) > len(before)
    assert after == sorted(set(after))
