"""A TrainJob is created once, followed to its end, and never left behind."""

import json
import os
import signal
import threading
import time

import pytest

from pfs_core.errors import AccessDeniedError, InvalidError, NotFoundError, UnreachableError, UserError
from pfs_core.trainjob import launch
from pfs_core.trainjob.launch import Cluster, JobFailedError, follow, state
from pfs_core.trainjob.manifest import SETTINGS
from tests.trainjob.api import JOBS, Api

BODY = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "job"}, "spec": {}}
CREATED, RUNNING = {}, {"jobsStatus": [{"name": "node", "active": 2, "ready": 0}]}


def condition(kind, message="", status="True"):
    return {"conditions": [{"type": kind, "status": status, "message": message}]}


def line(second, text):
    return f"2026-01-01T00:00:{second:02d}.000000000Z {text}"


DONE = [
    (CREATED, []),
    (condition("Suspended", "waits for quota"), []),
    (RUNNING, [line(1, "epoch 1")]),
    (RUNNING, [line(1, "epoch 1"), line(2, "epoch 2")]),
    (condition("Complete", "all done"), [line(2, "epoch 2"), line(3, "epoch 3")]),
]


@pytest.fixture
def api(tmp_path, monkeypatch):
    """A cluster that a kubeconfig points to; its jobs come to a good end."""
    made = Api(DONE)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "loopback", "cluster": {"server": made.address}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "loopback", "user": "me", "namespace": "team"}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    monkeypatch.setattr(launch, "_FIRST_WAIT", 0.001)
    yield made
    made.close()


def followed():
    follow(Cluster(), BODY, every=0.01)


def created(api):
    return api.calls.count(("POST", JOBS))


def test_a_job_is_created_and_followed_to_its_end(api, capsys):
    followed()
    assert capsys.readouterr().out.splitlines() == [
        "TrainJob team/job created",
        "TrainJob team/job is created",
        "TrainJob team/job is suspended: waits for quota",
        "TrainJob team/job is running",
        "epoch 1",
        "epoch 2",
        "TrainJob team/job is complete: all done",
        "epoch 3",
    ]
    assert api.jobs["job"] == BODY
    assert ("DELETE", f"{JOBS}/job") not in api.calls


def test_a_line_that_is_not_utf8_ends_nothing(api, capsys):
    api.course = [(condition("Complete", "done"), [line(1, "caf\udce9"), line(2, "epoch 2")])]
    followed()
    assert capsys.readouterr().out.splitlines()[-2:] == ["caf\ufffd", "epoch 2"]


def test_a_job_that_is_there_is_followed_and_not_made_again(api, capsys):
    api.jobs["job"] = BODY
    api.course = DONE[2:]
    followed()
    assert created(api) == 0
    assert "TrainJob team/job goes on" in capsys.readouterr().out


def test_a_job_that_failed_before_is_replaced(api):
    api.jobs["job"] = BODY
    api.course = [(condition("Failed", "out of memory"), []), *DONE]
    followed()
    assert created(api) == 1


@pytest.mark.parametrize(("kept", "made"), [(True, 0), (False, 1)])
def test_a_job_that_is_done_is_replaced_where_its_result_is_gone(api, capsys, kept, made):
    api.jobs["job"] = BODY
    api.course = [(condition("Complete", "all done"), []), *DONE]
    follow(Cluster(), BODY, every=0.01, has_result=lambda: kept)
    assert created(api) == made
    assert ("is done, and its result is gone; it is replaced" in capsys.readouterr().out) == (not kept)


def a_job(deleted=False, **annotations):
    """A manifest as the cluster has it."""
    more = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    return {**BODY, "metadata": {"name": "job", "annotations": annotations, **more}}


def test_a_job_that_is_being_deleted_is_waited_for_and_made_again(api, capsys):
    api.jobs["job"] = a_job(deleted=True)
    api.lingers = 4
    api.course = [(RUNNING, [])] * 3 + DONE
    followed()
    assert created(api) == 1
    assert "deletionTimestamp" not in api.jobs["job"]["metadata"]
    assert "TrainJob team/job is being deleted; it is replaced when it is gone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "made"),
    [(CREATED, 1), (condition("Suspended", "no node has so many GPUs"), 1), (RUNNING, 1), (condition("Complete"), 0)],
)
def test_a_job_of_other_settings_is_replaced_unless_it_is_done(api, status, made):
    api.jobs["job"] = a_job(**{SETTINGS: "old"})
    api.course = [(status, []), *DONE]
    follow(Cluster(), a_job(**{SETTINGS: "new"}), every=0.01)
    assert created(api) == made


def test_a_job_of_the_same_settings_goes_on(api):
    api.jobs["job"] = a_job(**{SETTINGS: "same"})
    follow(Cluster(), a_job(**{SETTINGS: "same"}), every=0.01)
    assert created(api) == 0


def test_a_failure_says_why(api):
    api.course = [(RUNNING, [line(1, "epoch 1")]), (condition("Failed", "out of memory"), [line(1, "epoch 1")])]
    with pytest.raises(JobFailedError, match="TrainJob team/job failed: out of memory"):
        followed()


def test_a_job_that_somebody_deletes_is_a_failure(api, monkeypatch):
    get, looks = Cluster.get, []

    def vanishing(self, name):
        looks.append(name)
        if len(looks) == 3:
            api.jobs.clear()
        return get(self, name)

    monkeypatch.setattr(Cluster, "get", vanishing)
    with pytest.raises(JobFailedError, match="has been deleted"):
        followed()


@pytest.mark.parametrize("faults", [[500, 503], [None, None, 429], [410]])
def test_what_fails_in_passing_is_tried_again(api, faults, capsys):
    api.faults = list(faults)
    followed()
    assert created(api) == 1
    assert "epoch 3" in capsys.readouterr().out


@pytest.mark.parametrize("before", [0, 1, 3, 4])
def test_a_connection_that_is_lost_without_a_word_is_not_waited_for(api, monkeypatch, capsys, before):
    """At the first look at the job, at its creation, at its pods and at their log."""
    monkeypatch.setattr(launch, "_TIMEOUT", (1, 0.2))
    api.course = DONE[3:]
    answer = api.answer

    def silent_once(request, method):
        if len(api.calls) == before:
            api.faults.append("silent")
        return answer(request, method)

    monkeypatch.setattr(api, "answer", silent_once)
    start = time.monotonic()
    followed()
    assert time.monotonic() - start < 15
    assert "epoch 3" in capsys.readouterr().out


def test_a_job_whose_creation_got_no_answer_is_followed(api, capsys):
    api.lost = 1
    followed()
    assert created(api) == 2
    assert "epoch 3" in capsys.readouterr().out


def test_an_api_that_stays_away_is_said_in_one_line(api):
    api.faults = [500] * launch.ATTEMPTS
    with pytest.raises(UnreachableError, match=f"failed {launch.ATTEMPTS} times to get trainjobs"):
        followed()


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (401, AccessDeniedError, "the cluster does not accept the credentials"),
        (
            403,
            AccessDeniedError,
            "the service account may not get trainjobs in namespace team; give it a role that may",
        ),
        (422, InvalidError, "the cluster refused to get trainjobs"),
    ],
)
def test_what_will_not_pass_is_said_in_one_line(api, fault, kind, says):
    api.faults = [fault]
    with pytest.raises(kind, match=says):
        followed()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid '
            'value: "torch": ClusterTrainingRuntime.trainer.kubeflow.org "torch" not found',
        ),
        (403, 'trainjobs.trainer.kubeflow.org "job" is forbidden: exceeded quota: pfs-quota'),
        (404, 'namespaces "team" not found'),
        (422, "spec.trainer.numNodes: Invalid value: 0"),
    ],
)
def test_a_job_that_is_refused_for_what_it_is_says_so_in_the_clusters_words(api, status, message):
    api.faults = [404, (status, message)]  # no such job yet
    with pytest.raises(InvalidError) as refused:
        followed()
    assert str(refused.value) == f"the cluster refused to create trainjobs in namespace team: {message}"


def test_a_cluster_without_trainer_is_named(api):
    api.faults = [404, 404]  # no such job, and then no such kind
    with pytest.raises(NotFoundError, match="is not installed in the cluster; install Kubeflow Trainer"):
        followed()


def test_no_cluster_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no Kubernetes cluster"):
        Cluster()


def test_what_a_pod_left_behind_is_no_cluster(tmp_path, monkeypatch, api):
    (tmp_path / "namespace").write_text("another")
    monkeypatch.setattr(launch, "_NAMESPACE", tmp_path / "namespace")
    assert Cluster().namespace == "team"


def test_a_launcher_that_is_stopped_takes_its_job_along(api):
    api.course = [(RUNNING, [])]
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(SystemExit) as stopped:
        followed()
    assert stopped.value.code == 143
    assert api.jobs == {}


def test_a_launcher_that_is_stopped_while_it_creates_takes_its_job_along(api, monkeypatch):
    create = Cluster.create

    def stopped(self, body):
        create(self, body)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Cluster, "create", stopped)
    with pytest.raises(SystemExit):
        followed()
    assert api.jobs == {}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("created", "")),
        ({"jobsStatus": [{"name": "node", "active": 0, "ready": 0}]}, ("created", "")),
        ({"jobsStatus": [{"name": "initializer", "active": 1}]}, ("created", "")),
        (RUNNING, ("running", "")),
        (condition("Suspended", "quota", "False"), ("created", "")),
        (condition("Complete") | RUNNING, ("complete", "")),
    ],
)
def test_states(status, expected):
    assert state({"status": status}) == expected
