"""What ``pfs submit --wait``, ``status`` and ``logs`` say of runs, by answers that a live Kubeflow has given."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pfs_pipelines import following
from pfs_pipelines.cli import main
from pfs_pipelines.client import Client
from pfs_pipelines.following import Progress, last_word, own_lines, remedy
from pfs_pipelines.packages import compile_one
from pfs_pipelines.workflow import steps, title

RECORDED = Path(__file__).parent / "recorded"
WITH_NODES = sorted(p.stem for p in RECORDED.glob("*.json") if json.loads(p.read_text())["status"].get("nodes"))
PENDING = "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """The specification of the pipeline that the recorded runs are of."""
    import yaml

    path = compile_one("compress", tmp_path_factory.mktemp("package") / "compress.yaml")
    return next(yaml.safe_load_all(path.read_text()))


def recording(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


@pytest.fixture
def replayed(api, spec):
    """Let the server answer as the live one did; returns the id of a recorded run."""
    import yaml

    def replay(name, **changes):
        content = recording(name)
        run = content["run"] | changes
        key, reference = run["run_id"], run["pipeline_version_reference"]
        api.recorded[key], api.workflows[key] = run, content["status"]
        api.versions[reference["pipeline_version_id"]] = reference | {"name": "1"}
        api.packages[reference["pipeline_version_id"]] = yaml.safe_dump(spec).encode()
        return key

    return replay


def shown(spec, run):
    """The lines of a run that is waited for, and its last state."""
    lines = []
    return lines, Progress(Client(), run, spec, lines.append).follow()


def of(name, spec):
    """The steps of a recorded run by their titles."""
    content = recording(name)
    return {s.title: s for s in steps(content["status"], spec, content["run"]["runtime_config"]["parameters"])}


def test_a_run_is_told_by_the_names_of_its_steps_and_their_durations(replayed, spec):
    lines, state = shown(spec, replayed("succeeded"))
    assert state == "SUCCEEDED"
    assert lines == [
        "Check the request: done in 18 s",
        "Split data: done in 16 s",
        "Search gates: done in 49 s",
        "Extract structure: done in 11 s",
        "Benchmark CPU latency: done in 43 s",
        "Retrain from scratch (pruned): done in 48 s",
        "Report: done in 34 s",
        "Close the run: done in 7 s",
        "run: SUCCEEDED after 5:54",
    ]


def test_a_run_ends_with_what_the_report_says(api, replayed, spec):
    key = replayed("succeeded")
    (pod,) = of("succeeded", spec)["Report"].pods
    api.logs[pod.node] = (
        "I1128 09:15:39.868245 1 main.go:67] level\n1.61x faster [1.58, 1.63] in ONNX Runtime\npage: x\n"
    )
    assert shown(spec, key)[0][-2:] == ["1.61x faster [1.58, 1.63] in ONNX Runtime", "page: x"]


def test_the_ui_reads_the_log_of_a_pod_that_the_api_has_not_archived(api, replayed, spec):
    key = replayed("succeeded")
    (pod,) = of("succeeded", spec)["Report"].pods
    workflow, _, number = pod.node.rpartition("-")
    assert pod.name == f"{workflow}-system-container-impl-{number}"
    assert Client().log(key, pod) == ""
    api.pod_logs = {pod.name: "of the pod\n"}
    assert Client().log(key, pod) == "of the pod\n"
    api.logs[pod.node] = "archived\n"
    assert Client().log(key, pod) == "archived\n"


def test_what_came_from_the_cache_is_said(spec):
    states = {text: step.state for text, step in of("cached", spec).items()}
    cached = ["Split data", "Search gates", "Extract structure", "Retrain from scratch (pruned)"]
    assert [text for text, state in states.items() if state == "cached"] == cached
    assert states["Benchmark CPU latency"] == states["Report"] == "done"


def test_a_failed_step_is_told_by_its_own_last_line(api, replayed, spec):
    key = replayed("wrong-budget")
    (pod,) = of("wrong-budget", spec)["Check the request"].pods
    api.logs[pod.node] = (RECORDED / "wrong-budget.log").read_text()
    lines, state = shown(spec, key)
    said = "budget 'macs=2'.target: must be a fraction in (0, 1] or a count such as 20M (got 2.0)"
    failed = f"Check the request: failed (main: Error (exit code 1)): {said}"
    assert state == "FAILED"
    assert lines[0] == lines[-1] == failed
    assert lines[-2] == "run: FAILED after 1:12"


def test_a_killed_trainer_is_one_step_with_two_tries(spec):
    step = of("killed-then-failed", spec)["Retrain from scratch (pruned)"]
    assert (step.state, step.reason, len(step.pods)) == ("failed", "main: Error (exit code 1)", 2)


def test_tries_at_every_level_of_the_graph_are_one_step(spec):
    step = of("retry-always-terminated", spec)["Check the request"]
    assert (step.state, len(step.pods)) == ("failed", 6)


@pytest.mark.parametrize("name", ["terminated-closed", "terminated-not-closed", "pending-then-terminated"])
def test_what_ended_with_the_run_has_not_failed_by_itself(replayed, spec, name):
    lines, state = shown(spec, replayed(name))
    assert state == "FAILED"
    assert lines[-1].startswith("run: FAILED after ")
    assert lines[-1].endswith(" (it was terminated)")
    assert any(line.endswith(": ended with the run") for line in lines)
    assert not any(": failed" in line for line in lines)


def retried(name):
    """The history of a recorded run as if it had been ended by hand, and started again by Kubeflow's *Retry*."""
    before = [(state, "2026-11-28T09:00:00Z") for state in ("PENDING", "RUNNING", "CANCELING", "FAILED")]
    after = [(entry["state"], entry["update_time"]) for entry in recording(name)["run"]["state_history"][1:]]
    return [{"state": state, "update_time": time} for state, time in before + after]


def test_what_fails_when_it_is_tried_again_did_not_end_with_the_run_before(replayed, spec):
    lines, _ = shown(spec, replayed("killed-then-failed", state_history=retried("killed-then-failed")))
    assert any(line.startswith("Retrain from scratch (pruned): failed") for line in lines)
    assert "terminated" not in lines[-1]
    lines, _ = shown(spec, replayed("terminated-closed", state_history=retried("terminated-closed")))
    assert lines[-1].endswith(" (it was terminated)")


def test_a_driver_that_dies_is_said_to_be_kubeflows(replayed, spec):
    lines, _ = shown(spec, replayed("no-config-map"))
    assert lines[0] == "Check the request: failed while Kubeflow prepared it: main: Error (exit code 1)"


def test_steps_are_told_where_the_workflow_keeps_its_nodes_elsewhere(replayed, spec):
    content = recording("plugin-injects-refused")
    assert content["status"]["nodes"] == {}
    lines, _ = shown(spec, replayed("plugin-injects-refused", state="FAILED"))
    assert lines[0] == "Check the request: failed"


def test_a_step_that_failed_before_the_run_was_ended_has_failed(api, replayed, spec):
    """Ended by hand after three tries had failed; only what ended after that ended with the run."""
    later = [{"state": "CANCELING", "update_time": "2026-11-28T09:28:08Z"}]
    nodes = recording("retry-always-terminated")["status"]["nodes"]
    last = next(n for n in nodes.values() if n["displayName"] == "executor(2)" and n["startedAt"] > "2026-11-28T09:28")
    key = replayed("retry-always-terminated", state_history=later)
    assert any(line.endswith("ended with the run") for line in shown(spec, key)[0])
    api.workflows[key] = {"nodes": {k: n for k, n in nodes.items() if k != last["id"]}}
    assert any(line.startswith("Check the request: failed") for line in shown(spec, key)[0])


def test_a_driver_that_was_lost_and_tried_again_has_not_failed(spec):
    content = recording("succeeded")
    nodes = content["status"]["nodes"]
    driver = next(n for n in nodes.values() if n["displayName"] == "find-structure-driver(0)")
    again = {**driver, "id": f"{driver['id']}x", "displayName": "find-structure-driver(1)"}
    again["startedAt"] = driver["finishedAt"]
    lost = {**driver, "phase": "Error", "message": "pod deleted"}
    status = {"nodes": {**nodes, driver["id"]: lost, again["id"]: again}}
    parameters = content["run"]["runtime_config"]["parameters"]
    assert steps(status, spec, parameters) == steps(content["status"], spec, parameters)
    lost_alone = {"nodes": {**nodes, driver["id"]: lost}}
    assert [step.reason for step in steps(lost_alone, spec, parameters) if step.driver] == ["pod deleted"]


@pytest.mark.parametrize("name", WITH_NODES)
def test_packed_nodes_are_the_same_nodes(name, spec):
    content = recording(name)
    parameters, nodes = content["run"]["runtime_config"]["parameters"], content["status"]["nodes"]
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    plain = steps(content["status"], spec, parameters)
    assert steps({"compressedNodes": packed}, spec, parameters) == plain
    assert plain


@given(st.sampled_from(WITH_NODES), st.data())
def test_at_every_moment_of_a_run_its_steps_can_be_told(name, data):
    """A run that is under way has some of the nodes only, and of those that run no end."""
    content = recording(name)
    nodes = content["status"]["nodes"]
    moment = data.draw(st.sampled_from(sorted({node["startedAt"] for node in nodes.values()})))
    so_far = {
        key: node if (node.get("finishedAt") or "~") <= moment else {**node, "phase": "Running", "finishedAt": None}
        for key, node in nodes.items()
        if node["startedAt"] <= moment
    }
    for step in steps({"nodes": so_far}, {}, {}):
        assert step.state in ("running", "waiting", "again", "done", "cached", "failed")
        assert step.title


def changed(task, **fields):
    """The nodes of a run that succeeded, but for some fields of the pod of a task; those that are None are left out."""
    nodes = recording("succeeded")["status"]["nodes"]
    path = next(node for node in nodes.values() if node["displayName"] == f"{task}(0)")
    pod = next(node for node in nodes.values() if node.get("boundaryID") == path["id"] and node["type"] == "Pod")
    given = {name: value for name, value in {**pod, **fields}.items() if value is not None}
    return {"nodes": {**nodes, pod["id"]: given}}


@pytest.mark.parametrize("name", ["id", "displayName", "type", "phase", "message", "startedAt", "finishedAt"])
@pytest.mark.parametrize("null", [False, True])
def test_a_node_may_lack_any_field(spec, name, null):
    status = changed("search-gates", **{name: None})
    if null:
        for node in status["nodes"].values():
            node.setdefault(name, None)
    whole = {step.title: step.state for step in steps(changed("search-gates"), spec, {})}
    found = {step.title: step.state for step in steps(status, spec, {})}
    assert {**whole, **found, "Search gates": ""} == {**whole, "Search gates": ""}
    if name == "phase":  # Argo has just added the node
        assert found["Search gates"] == "waiting"


@pytest.mark.parametrize("name", WITH_NODES)
def test_the_order_of_the_nodes_says_nothing(name, spec):
    nodes = recording(name)["status"]["nodes"]
    backwards = dict(reversed(nodes.items()))
    assert steps({"nodes": backwards}, spec, {}) == steps({"nodes": nodes}, spec, {})


@pytest.mark.parametrize("phase", ["Failed", "Error", "Pending"])
def test_a_message_of_several_lines_is_one_line(api, spec, phase):
    status = changed("search-gates", phase=phase, message="main: Error (exit code 1)\n  of the pod\n")
    (step,) = (step for step in steps(status, spec, {}) if step.title == "Search gates")
    line = following.described(Client(), "run", step)
    assert line.endswith(": main: Error (exit code 1) of the pod")


def test_a_run_without_a_state_has_not_begun(capsys, api, replayed):
    key = replayed("succeeded", state=None, finished_at=None)
    assert main(["status", key]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run: PENDING"


def waiting(content, name, message):
    """The workflow at the moment at which a step's pod waits for a reason."""
    nodes = content["status"]["nodes"]
    path = next(node for node in nodes.values() if node["displayName"] == f"{name}(0)")
    pod = next(node for node in nodes.values() if node.get("boundaryID") == path["id"] and node["type"] == "Pod")
    changed = {**pod, "phase": "Pending", "message": message, "finishedAt": None}
    return {"nodes": {**nodes, pod["id"]: changed}}


def test_a_pod_that_waits_says_why_after_a_while_and_what_helps(api, replayed, spec, monkeypatch):
    key = replayed("pending-then-terminated", state="RUNNING", state_history=[])
    api.workflows[key] = waiting(recording("pending-then-terminated"), "search-gates", PENDING)
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(following.time, "monotonic", lambda: next(clock))
    lines, client = [], Client()
    progress = Progress(client, key, spec, lines.append)
    run = client.get_run(key)
    progress.look(run)
    assert not any("waiting" in line for line in lines)
    progress.look(run)
    progress.look(run)
    (line,) = [line for line in lines if "waiting" in line]
    assert line.startswith(f"Search gates: waiting: {PENDING}: no node has a free GPU: where_gpu_count=0")
    api.workflows[key] = waiting(recording("pending-then-terminated"), "search-gates", "ImagePullBackOff: back-off")
    progress.look(run)
    assert lines[-1].startswith("Search gates: waiting: ImagePullBackOff: back-off: the image cannot be pulled")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (PENDING, "where_gpu_count=0"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "ask for less"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {a: b}.", "tolerations"),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "node_selector"),
        ("ErrImagePull: manifest unknown", "PFS_IMAGE"),
        ('CreateContainerConfigError: configmap "pfs" not found', "config_map"),
        ('persistentvolumeclaim "pfs-data" not found', "--data-volume"),
        ("container image is not present with pull policy of Never", "PFS_IMAGE"),
        ('pods "x" is forbidden: exceeded quota: team, requested: cpu=2', "quota is used up"),
        ("OOMKilled (exit code 137)", "gpu_memory"),
        ("Pod was evicted: The node was low on resource: memory. Threshold quantity: 100Mi", "gpu_memory"),
        ("The node was low on resource: ephemeral-storage.", "disk is full"),
        ("env[2].valueFrom: Invalid value: may not be specified when value is not empty", "compile it anew"),
        ("something else", ""),
    ],
)
def test_what_helps_is_said(reason, word):
    assert word in remedy(reason)
    assert bool(word) == bool(remedy(reason))


def test_own_lines_are_without_kubeflows():
    log = (RECORDED / "wrong-budget.log").read_text()
    assert own_lines(log) == [
        "error: budget 'macs=2'.target: must be a fraction in (0, 1] or a count such as 20M (got 2.0)"
    ]
    assert last_word("epoch 1\nTraceback:\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\nF1128 09:15:50 x") == (
        "torch.OutOfMemoryError: CUDA out of memory"
    )
    assert last_word("Killed") == "Killed"
    assert last_word("") == ""


def test_items_of_loops_are_named_where_they_are_known(spec):
    path = ("exit-handler-1", "for-loop-2", "1", "retrain")
    assert title(path, spec, {"networks": ["pruned", "uniform"]}) == "Retrain from scratch (uniform)"
    assert title(path, spec, {}) == "Retrain from scratch (dense)"
    assert title(path, spec, {"networks": []}) == "Retrain from scratch (2)"


def test_running_steps_show_what_they_log(api, replayed, spec):
    key = replayed("pending-then-terminated", state="RUNNING", state_history=[])
    status = waiting(recording("pending-then-terminated"), "search-gates", "")
    (pod,) = [node for node in status["nodes"].values() if node["phase"] == "Pending"]
    status["nodes"][pod["id"]] = {**pod, "phase": "Running"}
    api.workflows[key] = status
    api.logs[pod["id"]] = "I1128 09:15:39.868245 1 x]\nsearch epoch 1/10\n"
    client, lines = Client(), []
    progress = Progress(client, key, spec, lines.append, live=True)
    progress.look(client.get_run(key))
    api.logs[pod["id"]] += "search epoch 2/10\n"
    progress.look(client.get_run(key))
    api.logs[pod["id"]] += "search epoch 3/10\n"
    status["nodes"][pod["id"]] = {**pod, "phase": "Failed"}
    progress.look(client.get_run(key))
    progress.look(client.get_run(key))
    live = [line for line in lines if " | " in line]
    assert live == [f"  Search gates | search epoch {epoch}/10" for epoch in (1, 2, 3)]


def test_status_tells_of_a_run_that_somebody_else_started(capsys, api, replayed):
    key = replayed("killed-then-failed")
    assert main(["status", key]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "compress 2026-11-28 09:15:05"
    assert out[1].endswith(f"/#/runs/details/{key}")
    assert "Retrain from scratch (pruned): failed: main: Error (exit code 1)" in out
    assert out[-1].startswith("run: FAILED after 10:1")
    assert main(["status", key, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert {step["title"]: step["state"] for step in facts["steps"]}["Split data"] == "cached"


def test_pools_are_not_for_a_package_that_is_compiled(capsys, api, package, tmp_path):
    (tmp_path / "pools.yaml").write_text("where_gpu_count: '0'")
    assert main(["submit", str(package), "--param", "text=x", "--pools", str(tmp_path / "pools.yaml")]) == 2
    assert "--pools and --drop-downs are for pfs compile" in capsys.readouterr().err


def test_logs_are_those_of_the_steps(capsys, api, replayed, spec):
    key = replayed("killed-then-failed")
    for number, pod in enumerate(of("killed-then-failed", spec)["Retrain from scratch (pruned)"].pods):
        api.logs[pod.node] = f"I1128 09:15:39.868245 1 x]\nepoch {number}\n"
    assert not main(["logs", key, "retrain"])
    title_ = "== Retrain from scratch (pruned), try"
    assert capsys.readouterr().out.splitlines() == [f"{title_} 1", "epoch 0", f"{title_} 2", "epoch 1"]
    assert main(["logs", key, "Serach gates"]) == 2
    assert "no step 'Serach gates' with a log (did you mean Search gates?)" in capsys.readouterr().err


def test_a_byte_that_is_not_utf8_costs_no_log(capsys, api, replayed, spec):
    key = replayed("killed-then-failed")
    api.logs[of("killed-then-failed", spec)["Retrain from scratch (pruned)"].pods[-1].node] = "caf\udce9\nepoch 1\n"
    assert not main(["logs", key, "retrain"])
    assert capsys.readouterr().out.splitlines()[-2:] == ["caf\ufffd", "epoch 1"]


@pytest.mark.parametrize(
    ("pipeline", "parameters", "said"),
    [
        ("compress", ["budget=macs=2"], "must be a fraction in (0, 1]"),
        ("compress", ['budget="macs=0.5"'], "budget"),
        ("compress", ["recipe=nosuch"], "unknown recipe 'nosuch'"),
        ("compress", ['networks=["dense"]'], 'leave out "pruned"'),
        ("compress", ['settings_search={"epoch": 3}'], "epoch"),
        ("compress", ["seed=-1"], "seed"),
        ("compress", ["where_config_map="], "where_config_map must be the name of an object"),
        ("compress", ["secret="], "where_secret must be the name of an object"),
        ("pareto", ["budgets=[]"], "no budget is given"),
        ("pareto", ['budgets=["macs=0.5", "macs=0.5"]'], "given twice"),
        ("pareto", ["search_budget=macs=3", 'search_settings={"method": "network_slimming"}'], "macs=3"),
        ("compare", ['methods=["pfs", "pfs"]'], "name each method once"),
        ("compare", ["seeds=[]"], "at least one seed"),
        ("compare", ["seeds=[0,1,2,3,4,5,6,7,8,9]"], "50 searches (methods x budgets x seeds) are more than the 45"),
        ("compare", ['settings_method={"pfs": {"epoch": 3}}'], "epoch"),
        ("compare", ['budgets=["macs=0"]'], "macs=0"),
    ],
)
def test_what_needs_no_data_is_refused_before_anything_is_sent(capsys, api, pipeline, parameters, said):
    options = [option for parameter in parameters for option in ("--param", parameter)]
    assert main(["submit", pipeline, *options]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert api.calls == []


def test_a_schedule_is_checked_as_a_run_is(capsys, api):
    when = ["--name", "n", "--cron", "0 2 * * *"]
    assert main(["schedule", "create", "compress", "--param", "budget=macs=2", *when]) == 2
    assert "must be a fraction in (0, 1]" in capsys.readouterr().err
    assert api.calls == []
