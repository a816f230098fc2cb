"""Networks that share a pipeline's run in MLflow keep their figures and files apart there."""

import shutil

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from pfs_core import steps, tracking
from pfs_core.storage.artifacts import plain_name, short_name

LABELS = ("net-1", "net-2", "net (v2)-1", f"{240 * 'n'}-1", f"{240 * 'n'}-2")


@pytest.fixture
def parent(tmp_path, monkeypatch, empty_store):
    """The run of a pipeline; its id."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    mlflow.set_tracking_uri(None)
    tracking.make_experiment(tmp_path / "artifacts")
    yield tracking.open_pipeline("compress new models", {})
    mlflow.set_tracking_uri(None)


def test_each_has_all_of_its_figures_and_files(
    digits, gates, structures, models, latency, parent, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("pfs_core.steps.reporting._registered", lambda *_, **__: "")
    for i, label in enumerate(LABELS):
        out = tmp_path / str(i)
        figures = steps.report(digits, gates, structures, models, latency, out, label=label)
    logged = MlflowClient().get_run(parent).data.metrics
    assert len(logged) == len(LABELS) * len(figures)
    folders = {file.path for file in MlflowClient().list_artifacts(parent)}
    assert folders == {short_name(label) for label in LABELS}
    assert {f"{folder}.accuracy_drop" for folder in folders} <= logged.keys()
    assert "does not accept" not in caplog.text


@given(st.text(min_size=1), st.text(min_size=1))
def test_short_names_are_plain_and_keep_names_apart(one, other):
    short = short_name(one)
    assert plain_name(short) == short
    assert len(short) <= 100
    assert (short == short_name(other)) == (one == other)
