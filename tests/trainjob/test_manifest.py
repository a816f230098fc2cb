"""The TrainJob is one that Trainer's own models know, with nothing secret in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from pfs_pipelines.pools import Pools

from pfs_core.errors import UserError
from pfs_core.runtime.environment import SECRETS
from pfs_core.trainjob.manifest import PASSED_ON, SETTINGS, TrainJob, manifest

names = st.text("abcz", min_size=1, max_size=5)
JOBS = st.builds(
    TrainJob,
    nodes=st.integers(1, 16),
    processes=st.integers(1, 8),
    shared=st.just("s3://bucket/jobs"),
    image=st.just("registry/pfs-python:1"),
    runtime=names,
    gpu=st.sampled_from(["", "nvidia.com/gpu", "amd.com/gpu"]),
    cpu=st.sampled_from(["", "16"]),
    memory=st.sampled_from(["", "64Gi"]),
    secret=st.sampled_from(["", "store"]),
    node_selector=st.dictionaries(names, names, max_size=2),
    tolerations=st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, names), max_size=2),
)


@given(JOBS, st.sampled_from(["", "abc123"]))
def test_trainers_own_models_take_it_whole(job, run_id):
    body = manifest(job, "pfs-retrain-1", "s3://bucket/jobs/1", run_id)
    taken = TrainerV1alpha1TrainJob.from_dict(body).to_dict()
    assert json.loads(json.dumps(taken)) == body


@given(JOBS)
def test_it_says_what_was_asked_for(job):
    body = manifest(job, "pfs-retrain-1", "s3://bucket/jobs/1")
    trainer = body["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (job.nodes, job.processes)
    assert trainer["command"] == ["torchrun", "--max-restarts=3", "-m", "pfs_core.steps.node", "s3://bucket/jobs/1"]
    assert trainer.get("resourcesPerNode", {"limits": {}})["limits"].get(job.gpu) == (
        str(job.processes) if job.gpu else None
    )
    assert ("runtimePatches" in body["spec"]) == bool(job.node_selector or job.tolerations)


@pytest.mark.parametrize(
    "changed", [{"nodes": 2}, {"memory": "8Gi"}, {"node_selector": {"pool": "gpu"}}, {"runtime": "other"}]
)
def test_it_notes_which_settings_it_was_made_with_and_not_for_which_run(monkeypatch, changed):
    def noted(job, run_id=""):
        return manifest(job, "n", "s3://b/p/1", run_id)["metadata"]["annotations"][SETTINGS]

    job = TrainJob(shared="s3://b/p", image="i")
    monkeypatch.setenv("KFP_RUN_ID", "another")
    assert noted(job) == noted(job, "abc123")
    assert noted(job) != noted(job.updated(changed, "train_job"))


def test_a_node_has_cores_and_memory_where_nobody_says_how_much():
    """Without them the defaults of a namespace hold: in manifests/overlays/cloud-gpu one core and 1Gi."""
    body = manifest(TrainJob(shared="s3://b/p", image="i"), "n", "s3://b/p/1")
    asked = {"cpu": Pools().gpu_cpu, "memory": Pools().gpu_memory, "nvidia.com/gpu": "1"}
    assert body["spec"]["trainer"]["resourcesPerNode"] == {"limits": asked, "requests": asked}


def test_secrets_go_by_reference(monkeypatch):
    for key in (*SECRETS, *PASSED_ON):
        monkeypatch.setenv(key, f"value of {key}")
    job = TrainJob(shared="s3://b/p", image="i", secret="store")
    text = json.dumps(manifest(job, "n", "s3://b/p/1"))
    assert not any(f"value of {key}" in text for key in SECRETS)
    assert all(f"value of {key}" in text for key in PASSED_ON)
    assert all(json.dumps({"name": "store", "key": key, "optional": True}) in text for key in SECRETS)


def test_an_address_with_a_login_is_refused(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI holds a login") as refused:
        manifest(TrainJob(shared="s3://b/p", image="i", secret="store"), "n", "s3://b/p/1")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image": "i"}, "train_job.shared"),
        ({"shared": "s3://b", "image": ""}, "train_job.image"),
        ({"shared": "s3://b", "image": "i", "nodes": 0}, "train_job.nodes"),
        ({"shared": "s3://b", "image": "i", "gpus": 4}, "train_job.gpus is not a setting"),
        ({"shared": "s3://b", "image": "i", "cpu": "four"}, "train_job.cpu: must be a number of cores"),
        ({"shared": "s3://b", "image": "i", "memory": "16K"}, "train_job.memory: must be a Kubernetes quantity"),
    ],
)
def test_wrong_settings_are_named(settings, says):
    with pytest.raises(UserError, match=says):
        TrainJob.parse(settings, "train_job")
