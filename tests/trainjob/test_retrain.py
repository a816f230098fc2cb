"""A retraining as a TrainJob gives what one here gives."""

import os
import shutil

import pytest

from pfs_core import steps
from pfs_core.errors import AccessDeniedError, UnreachableError, UserError
from pfs_core.steps import node
from pfs_core.storage import open_storage
from pfs_core.storage.artifacts import read_json
from pfs_core.training.checkpoints import SECONDS
from pfs_core.training.finished import ROOT
from pfs_core.trainjob import retrain
from pfs_core.trainjob.shared import put_job
from tests.servers import answering

SETTINGS = {"epochs": 1, "batch_size": 256, "precision": "fp32", "scratch_b": False}


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A cluster whose only node is this process; the manifests it got."""
    got = []

    def follow(cluster, body, has_result):
        got.append(body)
        environment = {name: os.environ.get(name) for name in (ROOT,)}
        node.run(body["spec"]["trainer"]["command"][-1], tmp_path / "scratch")
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

    monkeypatch.setattr(retrain, "follow", follow)
    monkeypatch.setattr(retrain, "Cluster", lambda namespace: namespace)
    return got


def trained(structures, digits, out, job=None):
    return steps.retrain(structures / "structure.json", digits, out, "", SETTINGS, 0, job)


def test_the_model_comes_back_whole(digits, structures, tmp_path, nodes):
    job = {"shared": str(tmp_path / "shared"), "image": "pfs-python:1", "nodes": 2.0}
    here = trained(structures, digits, tmp_path / "here")
    there = trained(structures, digits, tmp_path / "there", job)
    assert there["test_accuracy"] == here["test_accuracy"]
    for name in ("model.safetensors", "structure.json", "history.parquet"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert sorted(read_json(tmp_path / "there" / "complete.json")) == sorted(
        read_json(tmp_path / "here" / "complete.json")
    )
    assert nodes[0]["spec"]["trainer"]["numNodes"] == 2


def test_the_same_inputs_have_the_same_job(digits, structures, tmp_path, nodes):
    job = {"shared": str(tmp_path / "shared"), "image": "pfs-python:1"}
    for out in ("one", "two"):
        trained(structures, digits, tmp_path / out, job)
    steps.retrain(structures / "structure.json", digits, tmp_path / "other", "", SETTINGS, 1, job)
    first, second, other = (body["metadata"]["name"] for body in nodes)
    assert first == second != other


def test_another_image_has_another_job(digits, structures, tmp_path, nodes):
    for image in ("pfs-python:1", "pfs-python:2"):
        trained(structures, digits, tmp_path / image[-1], {"shared": str(tmp_path / "shared"), "image": image})
    assert nodes[0]["metadata"]["name"] != nodes[1]["metadata"]["name"]


def test_inputs_that_are_there_are_left_alone(digits, structures, tmp_path, nodes):
    job = {"shared": str(tmp_path / "shared"), "image": "pfs-python:1"}
    times = []
    for out in ("one", "two"):
        trained(structures, digits, tmp_path / out, job)
        times.append({p: p.stat().st_mtime_ns for p in (tmp_path / "shared").glob("*/split/*")})
    assert times[0] == times[1] != {}


def test_a_job_that_is_done_is_asked_for_its_model(digits, structures, tmp_path, nodes, monkeypatch):
    """A lifecycle rule may have deleted it, while the cluster keeps the job."""
    job, asked = {"shared": str(tmp_path / "shared"), "image": "pfs-python:1"}, []
    trained(structures, digits, tmp_path / "one", job)
    monkeypatch.setattr(retrain, "follow", lambda cluster, body, has_result: asked.append(has_result()))
    trained(structures, digits, tmp_path / "two", job)
    shutil.rmtree(next((tmp_path / "shared").glob("*/model")))
    with pytest.raises(UserError):
        trained(structures, digits, tmp_path / "three", job)
    assert asked == [True, False]


def test_over_a_bucket(digits, structures, tmp_path, nodes, bucket):
    job = {"shared": f"{bucket}/jobs", "image": "pfs-python:1"}
    trained(structures, digits, tmp_path / "here")
    shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
    trained(structures, digits, tmp_path / "there", job)
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == (
        tmp_path / "here" / "model.safetensors"
    ).read_bytes()


def test_a_model_that_did_not_arrive_is_not_trained_from_the_beginning(
    digits, structures, tmp_path, nodes, monkeypatch, capsys
):
    monkeypatch.setenv(SECONDS, "0")
    job = {"shared": str(tmp_path / "shared"), "image": "pfs-python:1"}
    put_folder, tries = node.put_folder, []

    def failing_once(*args):
        tries.append(args)
        if len(tries) == 1:
            raise UnreachableError("the store is away")
        put_folder(*args)

    monkeypatch.setattr(node, "put_folder", failing_once)
    with pytest.raises(UnreachableError):
        trained(structures, digits, tmp_path / "out", job)
    monkeypatch.delenv(ROOT)
    assert "going on from checkpoint" not in capsys.readouterr().out
    trained(structures, digits, tmp_path / "out", job)
    assert "going on from checkpoint" in capsys.readouterr().out
    assert not list((tmp_path / "shared").rglob("*.pt"))


def test_a_node_that_mlflow_does_not_let_in_trains_all_the_same(digits, structures, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    put_job(
        open_storage(shared), structures / "structure.json", digits, {"recipe": "", "settings": SETTINGS, "seed": 0}
    )
    with answering(401) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_RUN_ID", "of-the-launcher")
        monkeypatch.setenv(ROOT, str(tmp_path / "checkpoints"))
        node.run(str(shared), tmp_path / "scratch")
    assert (shared / "model" / "metrics.json").is_file()


def test_inputs_that_may_not_be_listed_start_nothing(digits, structures, tmp_path, nodes, faulty, bucket):
    faulty.plan = lambda method, path: "403"
    with pytest.raises(AccessDeniedError):
        trained(structures, digits, tmp_path / "out", {"shared": f"{bucket}/jobs", "image": "pfs-python:1"})
    assert nodes == []
    assert len(faulty.requests) == 1


def test_wrong_settings_start_nothing(digits, structures, tmp_path, nodes):
    with pytest.raises(UserError, match=r"train_job\.nodes"):
        trained(structures, digits, tmp_path / "out", {"shared": "s3://b", "image": "i", "nodes": 0})
    assert nodes == []
    assert not (tmp_path / "out").exists()
