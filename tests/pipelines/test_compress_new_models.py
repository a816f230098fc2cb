"""``compress_new_models`` through the real kfp.local, against a real MLflow server with a registry."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import mlflow
import pytest
from mlflow import MlflowClient

from tests.data.folders import images, png, write
from tests.pipelines.brief import CODE, SETTINGS, run_pipeline
from tests.servers import mlflow_server

BRIEF = {key: value for key, value in SETTINGS.items() if key != "model_settings"}


@pytest.fixture
def server(tmp_path):
    with mlflow_server(tmp_path) as address:
        mlflow.set_tracking_uri(address)
        yield address
    mlflow.set_tracking_uri(None)


@pytest.fixture
def database(tmp_path, empty_store):
    """A store without a server, whose start takes longer than a run with nothing to do."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(None)


def ask(name, **more):
    """Request a narrow ResNet-20 on the digits; returns the version."""
    client = MlflowClient()
    asked = {
        "compress": "requested",
        "model": "resnet20",
        "model_settings": '{"width": 4}',
        "dataset": "digits",
        **more,
    }
    client.create_registered_model(name)
    tags = {f"pfs.{key}": value for key, value in asked.items()}
    return client.create_model_version(name, "s3://models/net", tags=tags)


def state(name):
    return MlflowClient().get_model_version(name, "1").tags


def run(tmp_path, server, run_id, **arguments):
    return run_pipeline("compress_new_models", tmp_path / run_id, server, run_id, **BRIEF, **arguments)


def runs_of(run_id):
    """The MLflow runs of a pipeline run."""
    experiment = MlflowClient().get_experiment_by_name("pfs").experiment_id
    return MlflowClient().search_runs([experiment], f"tags.`kfp.pipeline_run_id` = '{run_id}'")


def check_done(name):
    """The result of ``name`` is registered, tied to it and judged."""
    source = state(name)
    assert source["pfs.compress"] == "done", source
    result = MlflowClient().get_model_version(f"{name}-pruned", "1")
    assert source["pfs.pruned"] == f"models:/{name}-pruned/1"
    assert result.tags["pfs.source"] == f"models:/{name}/1"
    assert not [key for key in source if key.startswith("pfs.claim.")]
    return result


def test_nothing_to_do_is_a_short_green_run(tmp_path, database):
    done = run(tmp_path, database, "empty")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "nothing to compress" in done.stdout
    (parent,) = runs_of("empty")
    assert parent.info.status == "FINISHED"
    assert "search-gates" not in {path.name for path in (tmp_path / "empty").rglob("*")}


@pytest.mark.slow
def test_a_request_is_compressed_judged_and_registered(tmp_path, server):
    ask("net", max_accuracy_drop="0.99", min_speedup="0.01")
    done = run(tmp_path, server, "one")
    assert done.returncode == 0, done.stdout[-5000:]
    assert check_done("net").tags["pfs.gate"] == "passed"
    assert MlflowClient().get_model_version_by_alias("net-pruned", "accepted").version == "1"
    assert mlflow.pytorch.load_model("models:/net-pruned@accepted") is not None
    runs = {found.data.tags["pfs.step"]: found for found in runs_of("one")}
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    assert runs["pipeline"].info.run_name == "compress new models"
    assert "net-1.accuracy_drop" in runs["pipeline"].data.metrics


@pytest.mark.slow
def test_one_that_fails_is_given_back_and_the_others_are_done(tmp_path, server):
    encoded = [png(image) for image in images(20)]
    encoded[3] = b"broken"
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", encoded, [i % 2 for i in range(20)])
    ask("first")
    ask("broken", dataset=str(tmp_path / "data"))
    ask("last", min_speedup="100")
    done = run(tmp_path, server, "three")
    assert done.returncode != 0
    assert check_done("first").tags["pfs.gate"] == "passed"
    assert check_done("last").tags["pfs.gate"].startswith("failed: the speedup")
    broken = state("broken")
    assert (broken["pfs.compress"], broken["pfs.compress_attempts"]) == ("requested", "1")
    assert "ended without a result" in broken["pfs.compress_error"]
    parent = next(found for found in runs_of("three") if found.data.tags["pfs.step"] == "pipeline")
    assert parent.info.status == "FAILED"


@pytest.mark.slow
def test_two_runs_at_once_do_every_model_once(tmp_path, server):
    for i in range(3):
        ask(f"net{i}")
    codes = {}
    threads = [
        threading.Thread(target=lambda name=name: codes.update({name: run(tmp_path, server, name, limit=2).returncode}))
        for name in ("left", "right")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {"left": 0, "right": 0}
    for i in range(3):
        check_done(f"net{i}")
        assert len(MlflowClient().search_model_versions(f"name = 'net{i}-pruned'")) == 1
    assert {state(f"net{i}")["pfs.compress_run"] for i in range(3)} == {"left", "right"}


@pytest.mark.slow
def test_a_run_that_is_killed_loses_its_claim_and_the_next_one_finishes(tmp_path, server):
    ask("net")
    env = os.environ | {"MLFLOW_TRACKING_URI": server, "KFP_RUN_ID": "killed"}
    arguments = json.dumps({**BRIEF, "claim_hours": 0.02})
    command = [sys.executable, "-c", CODE, "compress_new_models", str(tmp_path / "killed"), arguments]
    with subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while state("net").get("pfs.compress") != "claimed":
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
    assert run(tmp_path, server, "early").returncode == 0
    assert state("net")["pfs.compress"] == "claimed"  # not expired yet, or this run would have done it
    (claim,) = [json.loads(text) for key, text in state("net").items() if key.startswith("pfs.claim.")]
    expires = datetime.fromisoformat(claim["expires"])
    time.sleep(max(0, (expires - datetime.now(UTC)).total_seconds() + 1))
    assert run(tmp_path, server, "next").returncode == 0
    check_done("net")
    assert "pfs.compress_attempts" not in state("net")
    assert state("net")["pfs.compress_run"] == "next"
