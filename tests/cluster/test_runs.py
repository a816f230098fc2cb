"""Runs of the four pipelines on the digits, and what happens to runs: cache, errors, ends by hand, lost pods.

    PFS_TEST_KFP_ENDPOINT=http://localhost:8080 PFS_IMAGE=localhost/pfs-python:0.1.0 make cluster

PFS_TEST_NAMESPACE, PFS_TEST_MLFLOW, PFS_TEST_KUBECONFIG and PFS_TEST_HAS_GPUS say more of the cluster.
"""

import json
import os
import time

import pytest
from pfs_pipelines.cli import main
from pfs_pipelines.following import last_word, own_lines

from tests.cluster.backend import EXPERIMENT, SMALL, optional

ONE = {"networks": ["pruned"]}
QUICK = {"settings_search": {"epochs": 2}, **ONE}
"""For what happens after the search."""


def options():
    """The options of the command line that name the server and the pools."""
    pairs = [f"--param={name}={value}" for name, value in SMALL.items()]
    server = [f"--endpoint={os.environ['PFS_TEST_KFP_ENDPOINT']}"]
    if namespace := os.environ.get("PFS_TEST_NAMESPACE"):
        server.append(f"--namespace={namespace}")
    return server, pairs


def test_submit_waits_and_ends_with_the_result(backend, capsys):
    server, pairs = options()
    assert main(["submit", "compress", *server, *pairs, f"--experiment={EXPERIMENT}", "--wait", "--json"]) == 0
    streams = capsys.readouterr()
    facts = json.loads(streams.out)
    backend.started.append(facts["run_id"])
    lines = streams.err.splitlines()
    for title in ("Check the request", "Search gates", "Retrain from scratch (pruned)", "Retrain from scratch (dense)"):
        assert any(line.startswith(f"{title}: ") for line in lines), streams.err
    assert any("against the dense network" in line for line in lines), streams.err
    assert not main(["status", facts["run_id"], *server])
    assert not main(["logs", facts["run_id"], "Report", *server])
    assert "against the dense network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pipeline", "parameters"),
    [
        ("pareto", {"budgets": ["macs=0.6", "macs=0.4"]}),
        ("compare", {"methods": ["pfs", "uniform"], "seeds": [0]}),
        ("compress_new_models", {"limit": 1}),
    ],
)
def test_the_other_pipelines_succeed(backend, pipeline, parameters):
    if pipeline == "compress_new_models":
        optional("PFS_TEST_MLFLOW", "requests wait in its registry")
    run = backend.start(pipeline, pipeline, **parameters)
    assert backend.ended(run, minutes=60) == "SUCCEEDED", backend.told(run)


def test_a_second_run_is_taken_from_the_cache_but_for_the_latency(backend):
    for _ in range(2):
        run = backend.start("compress", "cache", seed=1, **ONE)
        assert backend.ended(run) == "SUCCEEDED", backend.told(run)
    states = {title: step.state for title, step in backend.steps(run).items()}
    cached = {"Split data", "Search gates", "Extract structure", "Retrain from scratch (pruned)"}
    assert {title for title, state in states.items() if state == "cached"} == cached
    assert states["Benchmark CPU latency"] == "done"


def test_a_wrong_budget_fails_once_and_says_why(backend):
    run = backend.start("compress", "wrong budget", budget="macs=2", **ONE)
    assert backend.ended(run) == "FAILED"
    step = backend.steps(run)["Check the request"]
    assert (step.state, len(step.pods)) == ("failed", 1), backend.told(run)
    assert "must be a fraction in (0, 1]" in last_word(backend.client.log(run, step.pods[-1]))


def test_without_a_config_map_the_run_says_what_failed(backend):
    run = backend.start("compress", "no ConfigMap", where_config_map="", **ONE)
    assert backend.ended(run) == "FAILED"
    assert any(step.driver and step.state == "failed" for step in backend.steps(run).values()), backend.told(run)


def test_a_step_that_waits_for_a_gpu_says_so_and_can_be_ended(backend):
    if os.environ.get("PFS_TEST_HAS_GPUS"):
        pytest.skip("the cluster has GPUs")
    run = backend.start("compress", "no GPU", where_gpu_count="1", seed=2, **ONE)

    def waits():
        step = backend.steps(run).get("Search gates")
        return step if step and step.state == "waiting" and "nvidia.com/gpu" in step.reason else None

    assert backend.wait(run, waits, "the reason that Search gates waits", minutes=10)
    backend.terminate(run)
    assert backend.ended(run, minutes=10) in ("FAILED", "CANCELED")


@pytest.mark.parametrize("title", ["Search gates", "Retrain from scratch (pruned)"])
def test_a_run_that_is_ended_by_hand_leaves_nothing_open(backend, mlflow, title):
    long = {"settings_retrain": {"epochs": 400}, **QUICK}
    if title == "Search gates":
        long = {"settings_search": {"epochs": 400}, **ONE}
    run = backend.start("compress", f"end {title}", seed=3, **long)
    backend.reached(run, title, "running")
    time.sleep(30)  # into its computation
    backend.terminate(run)
    assert backend.ended(run, minutes=10) in ("FAILED", "CANCELED")
    assert not main(["runs", "close", *options()[0]])
    found = runs_of(mlflow, run)
    assert found
    told = [(each.info.run_name, each.info.status) for each in found]
    assert {status for _, status in told} <= {"FINISHED", "KILLED"}, told


def test_a_lost_pod_and_a_killed_trainer_go_on_and_give_the_same_bytes(backend, kubernetes, mlflow):
    long = {"settings_retrain": {"epochs": 150}, "seed": 4, **QUICK}
    title = "Retrain from scratch (pruned)"
    # One after the other: they are the same step on the same inputs, and would share their checkpoints.
    whole = backend.start("compress", "whole", cached=False, **long)
    assert backend.ended(whole, minutes=60) == "SUCCEEDED", backend.told(whole)
    hurt = backend.start("compress", "hurt", cached=False, **long)
    backend.reached(hurt, title, "running")
    # A step writes a checkpoint once a minute.
    kill_trainer(kubernetes, hurt, after=100)
    delete_pod(kubernetes, hurt, after=75)
    assert backend.ended(hurt, minutes=60) == "SUCCEEDED", backend.told(hurt)
    pods = backend.steps(hurt)[title].pods
    assert len(pods) == 2, backend.told(hurt)
    killed, lost = ("\n".join(own_lines(backend.client.log(hurt, pod))) for pod in pods)
    assert "by SIGKILL" in killed, killed
    assert "going on from checkpoint" in killed.partition("by SIGKILL")[2], killed
    assert "going on from checkpoint" in lost, lost
    assert weights(mlflow, whole) == weights(mlflow, hurt)


def test_a_schedule_starts_a_run_and_is_not_deleted_under_it(backend, capsys):
    server, pairs = options()
    name = f"pfs-test-{int(time.time())}"
    made = ["schedule", "create", "compress", "--name", name, "--cron", "*/1 * * * *", f"--experiment={EXPERIMENT}"]
    assert not main([*made, *server, *pairs, "--param=seed=5"])
    try:
        deadline = time.monotonic() + 300
        while not (fired := scheduled(backend, name)):
            assert time.monotonic() < deadline, f"the schedule {name} has started no run in five minutes"
            time.sleep(5)
        backend.started.append(fired.run_id)
        capsys.readouterr()
        assert main(["schedule", "delete", name, *server]) == 2
        assert f"is going on ({fired.run_id})" in capsys.readouterr().err
    finally:
        assert not main(["schedule", "delete", name, "--end-runs", *server])
    assert backend.run(fired.run_id).state in ("FAILED", "CANCELED")


def test_with_kubeflows_mlflow_plugin_there_is_one_tree_of_runs(backend, mlflow):
    run = backend.start("compress", "plugin", cached=False, seed=6, **QUICK)
    assert backend.ended(run) == "SUCCEEDED", backend.told(run)
    root = getattr(backend.run(run), "plugins_output", None)
    if not root:
        pytest.skip("the server has no MLflow plugin")
    tops = [found for found in runs_of(mlflow, run) if "mlflow.parentRunId" not in found.data.tags]
    assert [found.data.tags.get("pfs.step") for found in tops] == ["pipeline"]
    assert "pruned_latency_ratio" in tops[0].data.metrics


def runs_of(mlflow, pipeline):
    """The runs in MLflow that belong to a run on Kubeflow."""
    ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    return list(mlflow.search_runs(ids, f"tags.`kfp.pipeline_run_id` = '{pipeline}'"))


def weights(mlflow, pipeline):
    """The weights of the pruned network of a run, as bytes."""
    (run,) = [r for r in runs_of(mlflow, pipeline) if r.data.tags.get("pfs.step") == "retrain/pruned"]
    return open(mlflow.download_artifacts(run.info.run_id, "model/model.safetensors"), "rb").read()  # noqa: PTH123


def trainer_pod(kubernetes, run_id):
    """The pod of a run that retrains, once it runs; fails after five minutes."""
    deadline = time.monotonic() + 300
    while True:
        pods = kubernetes.list_pod_for_all_namespaces(label_selector=f"pipeline/runid={run_id}").items
        running = [pod for pod in pods if pod.status.phase == "Running"]
        names = [(pod.metadata.annotations or {}).get("workflows.argoproj.io/node-name", "") for pod in running]
        found = [pod for pod, name in zip(running, names, strict=True) if ".retrain" in name and ".executor" in name]
        if found:
            return found[0]
        assert time.monotonic() < deadline, "no pod retrains"
        time.sleep(2)


KILL = """
import os, signal
me = os.getpid()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        stat = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        line = open(f"/proc/{pid}/cmdline").read()
        above = open(f"/proc/{stat[1]}/cmdline").read()
    except OSError:
        continue
    if int(pid) != me and "kfp" in line and line == above:
        os.kill(int(pid), signal.SIGKILL)
        print("killed", pid)
"""


def kill_trainer(kubernetes, run_id, after):
    """Kill the process that trains, which is the child of the one that supervises it, and leave its pod alone."""
    from kubernetes.stream import stream

    time.sleep(after)
    pod = trainer_pod(kubernetes, run_id)
    said = stream(
        kubernetes.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        pod.metadata.namespace,
        container="main",
        command=["python", "-c", KILL],
        stdout=True,
        stderr=True,
    )
    assert "killed" in said, said


def delete_pod(kubernetes, run_id, after):
    """Delete the pod that trains, as when its node goes away."""
    time.sleep(after)
    pod = trainer_pod(kubernetes, run_id)
    kubernetes.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace)


def scheduled(backend, name):
    """The first run that a schedule has started, or None."""
    runs = backend.client.list_runs(page_size=20, sort_by="created_at desc", namespace=backend.client.namespace or None)
    schedules = backend.client.list_recurring_runs(page_size=50, namespace=backend.client.namespace or None)
    ids = {s.recurring_run_id for s in schedules.recurring_runs or [] if s.display_name == name}
    return next((run for run in runs.runs or [] if run.recurring_run_id in ids), None)
