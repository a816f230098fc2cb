"""``pfs submit`` through the real client, over HTTP, to an API that checks every request."""

import json
import socket
from dataclasses import fields

import kfp.client
import pytest
import yaml
from pfs_pipelines import client, credentials
from pfs_pipelines.cli import main
from pfs_pipelines.client import ATTEMPTS
from pfs_pipelines.compiled import Package, load_package, parse_package
from pfs_pipelines.following import PATIENCE
from pfs_pipelines.packages import PIPELINES
from pfs_pipelines.parameters import PATTERNS, run_parameters
from pfs_pipelines.pools import Pools, form_name

import pfs_core
from pfs_core.errors import UserError
from tests.pipelines.kfp_api import PREFIX, RefusedError, check

TEXT = ("--param", "text=hello")


def submitted(capsys, *argv):
    """What a submission prints as JSON."""
    code = main(["submit", *map(str, argv), "--json"])
    assert code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("where_latency_cores", ["2", "16"], ["1500m", "0", "x", "1.5", ""]),
        ("where_gpu_cpu", ["4", "500m", "0.5"], ["four", "0", "4 "]),
        ("where_gpu_memory", ["16Gi", "1.5G", "0.5Gi", "500M", "8k", "1024"], ["16K", "16GB", "0Gi", "0.0Gi", "16 Gi"]),
        ("where_gpu_count", ["0", "1"], ["4", "4.5", "one"]),
        ("where_config_map", ["pfs-config", "team.a"], ["", "Team", "a b"]),
        ("where_secret", ["pfs-secret"], ["", "-"]),
    ],
)
def test_sizes_of_steps_are_checked_before_they_are_sent(name, good, bad):
    definitions = {name: {"parameterType": "STRING", "defaultValue": "1"}}
    for value in good:
        assert run_parameters(definitions, [f"{name}={value}"], None) == {name: value}
    for value in bad:
        with pytest.raises(UserError, match=f"parameter {name} must be"):
            run_parameters(definitions, [f"{name}={value}"], None)


@pytest.mark.parametrize("where", ["file", "pairs"])
def test_a_parameter_by_its_name_of_today_and_by_that_of_the_first_version_is_refused(tmp_path, where):
    definitions = {"settings_search": {"parameterType": "STRUCT", "isOptional": True}}
    given = {"search_settings": {"epochs": 1}, "settings_search": {"epochs": 2}}
    file = tmp_path / "params.json"
    file.write_text(json.dumps(given))
    pairs = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    with pytest.raises(UserError, match="settings_search is given twice, also as search_settings; leave out search_s"):
        run_parameters(definitions, pairs if where == "pairs" else [], file if where == "file" else None)


def test_the_names_of_the_first_version_are_understood_and_said(caplog, tmp_path):
    names = {"settings_search": "STRUCT", "where_gpu_count": "STRING", "budget": "STRING"}
    definitions = {name: {"parameterType": kind, "isOptional": True} for name, kind in names.items()}
    file = tmp_path / "params.yaml"
    file.write_text("gpu_count: '0'")
    with caplog.at_level("INFO"):
        found = run_parameters(definitions, ['search_settings={"epochs": 1}', "budget=macs=0.5"], file)
    assert found == {"where_gpu_count": "0", "settings_search": {"epochs": 1}, "budget": "macs=0.5"}
    assert "the parameter gpu_count is called where_gpu_count now" in caplog.text
    assert "the parameter search_settings is called settings_search now" in caplog.text


def test_the_sizes_that_are_checked_are_those_of_the_pools():
    checked = ("_type", "_count", "_retrain", "_cpu", "_cores", "_memory", "config_map", "secret")
    texts = {form_name(f.name): f.default for f in fields(Pools) if f.name.endswith(checked)}
    assert set(texts) == set(PATTERNS)
    assert run_parameters({n: {"parameterType": "STRING"} for n in texts}, [f"{n}={v}" for n, v in texts.items()], None)


def failed(capsys, code, *argv):
    """The one line with which a command ends."""
    assert main([str(a) for a in argv]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pfs: ")
    return lines[0]


def test_a_run_starts_from_the_uploaded_version_with_its_parameters(capsys, api, package):
    flags = (*TEXT, "--param", "count=3", "--param", 'names=["x"]', "--experiment", "mine", "--run-name", "first")
    facts = submitted(capsys, package, *flags)
    run = api.runs[facts["run_id"]]
    assert run["display_name"] == "first"
    assert run["runtime_config"]["parameters"] == {"text": "hello", "count": 3, "names": ["x"]}
    assert run["pipeline_version_reference"]["pipeline_version_id"] == facts["pipeline_version_id"]
    assert api.packages[facts["pipeline_version_id"]] == package.read_bytes()
    assert api.experiments[run["experiment_id"]]["display_name"] == "mine"
    assert facts["link"] == f"{api.endpoint}/#/runs/details/{facts['run_id']}"


@pytest.mark.parametrize("flags", [(), ("--no-cache",)])
def test_the_service_account_is_kubeflows_unless_one_is_named(capsys, api, package, flags):
    assert not api.runs[submitted(capsys, package, *TEXT, *flags)["run_id"]].get("service_account")
    facts = submitted(capsys, package, *TEXT, *flags, "--service-account", "pfs")
    assert api.runs[facts["run_id"]]["service_account"] == "pfs"


def test_every_pipeline_of_the_project_can_be_submitted_by_name(capsys, api):
    for name in PIPELINES:
        facts = submitted(capsys, name)
        assert api.pipelines[facts["pipeline_id"]]["name"] == name.replace("_", "-")
        assert facts["version"].startswith(f"{pfs_core.__version__}-")


def test_the_same_package_is_uploaded_once_and_another_as_a_new_version(capsys, api, package, tmp_path):
    first, again = submitted(capsys, package, *TEXT), submitted(capsys, package, *TEXT)
    assert again["pipeline_version_id"] == first["pipeline_version_id"]
    changed = tmp_path / "small.yaml"
    changed.write_bytes(package.read_bytes() + b"# changed\n")
    other = submitted(capsys, changed, *TEXT)
    assert other["pipeline_id"] == first["pipeline_id"]
    assert other["version"] != first["version"]
    assert (len(api.pipelines), len(api.versions), len(api.experiments), len(api.runs)) == (1, 2, 1, 3)


def test_upload_only_starts_no_run(capsys, api, package):
    facts = submitted(capsys, package, "--upload")
    assert list(api.versions) == [facts["pipeline_version_id"]]
    assert not api.runs
    assert not api.experiments
    assert "--upload starts no run" in failed(capsys, 2, "submit", package, "--upload", "--wait")


def test_no_cache_reaches_the_tasks_inside_loops(capsys, api, package):
    facts = submitted(capsys, package, *TEXT, "--no-cache")
    assert not api.versions
    spec = api.runs[facts["run_id"]]["pipeline_spec"]
    sent = parse_package(yaml.safe_dump(spec).encode(), "sent")
    assert sent.tasks == {"step", "for-loop-2", "step-2"}
    assert json.dumps(load_package(str(package)).documents).count('"enableCache": true') == 2
    assert "enableCache" not in json.dumps(spec)


def test_it_prints_the_version_the_run_and_its_page(capsys, api, package, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.test/pipeline/")
    assert main(["submit", str(package), *TEXT]) == 0
    [run] = api.runs
    version = load_package(str(package)).version
    assert capsys.readouterr().out.splitlines() == [
        f"small {version} uploaded",
        f"run {run}",
        f"https://kubeflow.test/pipeline/#/runs/details/{run}",
    ]


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("texts=x", "no parameter 'texts' (did you mean text?); known: "),
        ("count=1.5", "parameter count must be a whole number (got 1.5)"),
        ("count=true", "parameter count must be a whole number (got True)"),
        ("share=half", "parameter share must be a number (got 'half')"),
        ("on=1", "parameter on must be true or false (got 1)"),
        ("names=a,b", "parameter names must be a JSON list"),
        ('more=["a"]', "parameter more must be a JSON object"),
        ("more={'a': 1}", "parameter more must be a JSON object"),
        ('more={"a": NaN}', "parameter more is not JSON: NaN is no number"),
        ("count", "--param 'count' is not understood; expected NAME=VALUE"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_sent(capsys, api, package, parameter, reason):
    assert reason in failed(capsys, 2, "submit", package, *TEXT, "--param", parameter)
    assert api.calls == []


@pytest.mark.parametrize(
    ("pipeline", "parameter", "reason"),
    [
        ("compare", 'methods=[["pfs"]]', "search.method: ['pfs'] is not known (did you mean pfs?)"),
        ("compare", 'settings_method={"pfs": 5}', "method_settings of 'pfs' must be an object"),
        ("compress", "model=resnet21", "unknown model 'resnet21' (did you mean resnet20?)"),
        ("compress", 'model=["resnet20"]', "unknown model '[\"resnet20\"]'"),
        ("compress", "dataset=ftp://x", "ftp:// is not known; use a path, file:// or s3://"),
        ("compress", "registered_model=..x", "takes no name that begins with .. ('..x')"),
        ("compress", 'train_job={"node": 2}', "train_job.shared: is missing"),
        (
            "compress",
            'train_job={"shared": "s3://b/x", "image": "i", "nodes": "two"}',
            "train_job.nodes: must be a whole",
        ),
        (
            "compress",
            'train_job={"shared": "s3://b/x", "image": "i", "memory": "64GB"}',
            "train_job.memory: must be a Kubernetes quantity, e.g. 16Gi (got '64GB')",
        ),
        ("compress", 'train_job={"shared": "ftp://b/x", "image": "i"}', "ftp:// is not known"),
        ("compress_new_models", "limit=-3", "limit -3 is out of range; from 0 up"),
        ("compress_new_models", "claim_hours=0", "claim_hours 0.0 is out of range"),
        ("compress_new_models", "request_files=ftp://x", "ftp:// is not known"),
        ("compress_new_models", 'settings_search={"epoch": 2}', "search.epoch is not a setting (did you mean epochs?)"),
        ("compress_new_models", 'settings_search={"method": []}', "search.method: [] is not known"),
        ("compress_new_models", 'settings_retrain={"lr": -1}', "retrain.lr: must be a number above 0 (got -1)"),
        ("pareto", 'where_gpu_node_selector={"pool": 1}', "must be labels of nodes with texts as values"),
        ("pareto", 'where_gpu_node_selector={"a b": "c"}', "must be labels of nodes with texts as values"),
        ("pareto", 'where_cpu_tolerations=["gpu"]', "must be a list of tolerations"),
        ("pareto", 'where_cpu_tolerations=[{"keyy": "a"}]', "a toleration has no 'keyy' (did you mean key?)"),
        ("pareto", 'where_cpu_tolerations=[{"effect": "noschedule"}]', "(did you mean NoSchedule?)"),
        ("pareto", 'where_cpu_tolerations=[{"effect": ["NoExecute"]}]', "effect must be NoSchedule or"),
        ("pareto", 'where_cpu_tolerations=[{"tolerationSeconds": "5"}]', "tolerationSeconds must be a whole number"),
        (
            "pareto",
            'where_cpu_tolerations=[{"key": "a", "tolerationSeconds": 5}]',
            "tolerationSeconds needs",
        ),
        ("pareto", 'where_cpu_tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]', "Exists takes no value"),
        ("pareto", 'where_cpu_tolerations=[{"value": "x"}]', "needs the operator Exists"),
        ("pareto", 'where_cpu_tolerations=[{"key": "bad key!", "operator": "Exists"}]', "key must be that of a taint"),
        ("pareto", 'where_cpu_tolerations=[{"key": "a", "value": "x y"}]', "value must be that of a taint"),
        ("pareto", 'where_cpu_node_selector={"a..b/c": "x"}', "must be labels of nodes"),
        ("pareto", f'where_cpu_node_selector={{"{"a" * 254}/b": "x"}}', "must be labels of nodes"),
        ("pareto", "where_gpu_type=nvidia", "must be the name of a resource of Kubernetes, e.g. nvidia.com/gpu"),
        ("pareto", f"where_secret={'a' * 300}", "must be the name of an object of Kubernetes"),
    ],
)
def test_what_could_only_fail_is_refused_before_it_is_sent(capsys, api, pipeline, parameter, reason):
    assert reason in failed(capsys, 2, "submit", pipeline, "--param", parameter)
    assert api.calls == []


@pytest.mark.parametrize(
    ("pipeline", "parameter"),
    [
        ("compress", 'train_job={"nodes": 2.0, "shared": "s3://bucket/jobs", "image": "registry/pfs-python:1"}'),
        ("compress", "model=nets:build"),
        ("compress", "dataset=s3://bucket/images"),
        ("compare", 'settings_method={"amc": {"method": "amc", "episodes": 200}}'),
        ("compress_new_models", 'settings_search={"method": "amc", "episodes": 200}'),
        ("compress_new_models", 'settings_retrain={"keep": "best", "train_on_validation": false}'),
        ("pareto", 'where_gpu_node_selector={"cloud.google.com/gke-accelerator": "nvidia-l4", "spot": ""}'),
        (
            "pareto",
            'where_cpu_tolerations=[{"operator": "Exists"}, '
            '{"key": "a/b", "effect": "NoExecute", "tolerationSeconds": 5}]',
        ),
        ("pareto", "where_gpu_type=nvidia.com/mig-1g.5gb"),
    ],
)
def test_what_may_succeed_is_sent(capsys, api, pipeline, parameter):
    assert submitted(capsys, pipeline, "--param", parameter)["run_id"] in api.runs


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--namespace", "Team A"), "--namespace must be a namespace, of at most 63 small letters, digits and -"),
        (("--namespace", "a.b"), "--namespace must be a namespace"),
        (("--service-account", "a/b"), "--service-account must be a name of Kubernetes"),
        (("--experiment", " "), "--experiment must be a name that can be seen, in one line (got ' ')"),
        (("--experiment", ""), "--experiment must be a name that can be seen"),
        (("--run-name", "a\nb"), "--run-name must be a name that can be seen"),
        (("--run-name", "n" * 256), "--run-name must be a name of at most 255 characters (got 256: 'nnn"),
        (("--experiment", "n" * 129), "--experiment must be a name of at most 128 characters (got 129: 'nnn"),
        (("--data-volume", "A b"), "--data-volume must be a name of Kubernetes"),
        (("--data-volume", "data"), "--data-volume is for compress, pareto, compare, compress_new_models; "),
        (("--image", "registry/pfs-python:2"), "--image is for pipelines by name; "),
    ],
)
def test_wrong_names_are_refused_before_anything_is_sent(capsys, api, package, monkeypatch, argv, reason):
    monkeypatch.setenv("PFS_IMAGE", "")  # --image sets it
    assert reason in failed(capsys, 2, "submit", package, *TEXT, *argv)
    assert api.calls == []


def test_a_missing_parameter_is_named(capsys, api, package):
    assert "the pipeline needs a value for text; " in failed(capsys, 2, "submit", package)
    assert api.calls == []


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_parameters_come_from_a_file_and_flags_win(capsys, api, package, tmp_path, suffix):
    file = tmp_path / f"parameters.{suffix}"
    values = {"text": "file", "count": 2, "share": 1, "on": False, "more": {"a": [1, None]}}
    file.write_text(json.dumps(values))  # JSON is YAML
    facts = submitted(capsys, package, "--params", file, "--param", "count=7")
    assert api.runs[facts["run_id"]]["runtime_config"]["parameters"] == {**values, "count": 7}
    file.write_text('{"text": 3}')
    assert "parameter text must be text (got 3)" in failed(capsys, 2, "submit", package, "--params", file)
    file.write_text("[]")
    assert "must hold an object" in failed(capsys, 2, "submit", package, "--params", file)
    assert "none.yaml cannot be read" in failed(capsys, 2, "submit", package, "--params", tmp_path / "none.yaml")


def test_what_is_no_pipeline_is_refused(capsys, api, tmp_path):
    assert "did you mean compress?" in failed(capsys, 2, "submit", "compres")
    assert "none.yaml cannot be read" in failed(capsys, 2, "submit", tmp_path / "none.yaml")
    file = tmp_path / "pod.yaml"
    for text in ("kind: Pod", "a: [", "", "- 1", "pipelineInfo: {name: x}"):
        file.write_text(text)
        assert "pod.yaml is not a compiled pipeline; pfs compile" in failed(capsys, 2, "submit", file)
    assert api.calls == []


def test_wait_follows_run_and_tasks_to_success(capsys, api, package):
    api.course = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    api.task_course = [("root-driver", "RUNNING"), ("step", "RUNNING"), ("step", "RUNNING"), ("step", "SUCCEEDED")]
    assert main(["submit", str(package), *TEXT, "--wait"]) == 0
    said = ["run: PENDING", "step: running", "run: RUNNING", "step: done in 1:10", "run: SUCCEEDED"]
    assert capsys.readouterr().out.splitlines()[3:] == said


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_wait_fails_with_the_run(capsys, api, package, state):
    api.course = ["RUNNING", state]
    assert main(["submit", str(package), *TEXT, "--wait", "--json"]) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out)["state"] == state
    assert f"run: {state}" in streams.err
    assert ("(search-gates ended with code 1)" in streams.err) == (state == "FAILED")


def test_a_run_at_many_budgets_has_a_name_that_kubeflows_database_takes(api, monkeypatch):
    """Seen in Kubeflow's code: it starts the workflow before it stores the run, and then answers 500."""
    monkeypatch.setenv("PFS_IMAGE", "pfs-python:1")
    budgets = json.dumps([f"latency=0.{i}" for i in range(30, 90)])
    assert main(["submit", "pareto", "--param", f"budgets={budgets}"]) == 0
    [run] = api.runs.values()
    assert run["display_name"].startswith("pareto resnet20 ")
    assert run["display_name"].endswith("...")
    assert len(run["display_name"]) == 255


def test_wait_survives_passing_faults(capsys, api, package):
    look = f"GET {PREFIX}/runs/"
    api.faults = [(look, what) for what in (500, 503, "cut", 502, "latin", 429, 504, "cut", 500)]
    assert main(["submit", str(package), *TEXT, "--wait"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "run: SUCCEEDED"
    assert sum("still waiting" in line for line in lines) == 1


def test_wait_ends_when_the_server_stays_broken_or_the_token_has_ended(capsys, api, package):
    look = f"GET {PREFIX}/runs/"
    api.faults = [(look, 500)] * ATTEMPTS * PATIENCE
    line = failed(capsys, 1, "submit", package, *TEXT, "--wait")
    assert "failed (500 at GET /apis/v2beta1/runs/{run_id})" in line
    assert line.endswith("; the run goes on")
    api.faults = [(look, 401)]
    assert failed(capsys, 2, "submit", package, *TEXT, "--wait").endswith("; the run goes on")


def test_a_question_is_asked_again_and_a_run_never_started_twice(capsys, api, package):
    api.faults = [(f"GET {PREFIX}/{kind}", 500) for kind in ("healthz", "pipelines", "experiments")]
    submitted(capsys, package, *TEXT)
    api.faults = [(f"POST {PREFIX}/runs", ("done", 500))]
    assert "failed (500 at POST /apis/v2beta1/runs): planned, but done" in failed(capsys, 1, "submit", package, *TEXT)
    assert len(api.runs) == 2


@pytest.mark.parametrize("path", [f"POST {PREFIX}/pipelines", f"POST {PREFIX}/pipelines/upload_version"])
def test_what_somebody_else_made_meanwhile_is_used(capsys, api, package, path):
    """The pipeline or version is there although the answer was lost; the next attempt finds it."""
    api.faults = [(path, ("done", 409))]
    submitted(capsys, package, *TEXT)
    assert (len(api.pipelines), len(api.versions), len(api.runs)) == (1, 1, 1)


def test_an_upload_that_broke_off_is_taken_up(capsys, api, package):
    api.faults = [(f"POST {PREFIX}/pipelines/upload_version", 500)]
    assert "upload_version" in failed(capsys, 1, "submit", package, *TEXT)
    assert (len(api.pipelines), len(api.versions)) == (1, 0)
    submitted(capsys, package, *TEXT)
    assert (len(api.pipelines), len(api.versions)) == (1, 1)


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        (401, 2, "needs credentials, or different ones (401); set KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIES"),
        (403, 2, "not allowed (403 at GET /apis/v2beta1/healthz): planned, with Bearer ***; check KF_PIPELINES_TOKEN"),
        (404, 2, "does not answer as Kubeflow Pipelines 2: it has no /apis/v2beta1/healthz"),
        (400, 2, "refuses (400 at GET /apis/v2beta1/healthz)"),
        ("html", 2, "it answers with a web page, perhaps a login"),
        (500, 1, "failed (500 at GET /apis/v2beta1/healthz): planned, with Bearer ***"),
        ("cut", 1, "does not answer (ProtocolError)"),
    ],
)
def test_every_fault_is_one_line_without_the_token(capsys, api, package, monkeypatch, what, code, reason):
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "s3cr3t-token")
    api.faults = [("GET", what)] * 4
    line = failed(capsys, code, "submit", package, *TEXT)
    assert reason in line
    assert "s3cr3t" not in line


@pytest.mark.parametrize("what", [409, 403, 404])
def test_faults_after_the_connection_name_the_request(capsys, api, package, what):
    api.faults = [(f"POST {PREFIX}/experiments", what)]
    assert f"{what} at POST /apis/v2beta1/experiments" in failed(capsys, 2, "submit", package, *TEXT)


def test_json_of_another_server_is_not_kubeflow(capsys, api, package, monkeypatch):
    monkeypatch.setattr(api, "carry_out", lambda *_: {"status": "ok"})
    assert "does not answer as Kubeflow Pipelines 2: its answer has no multi_user" in failed(
        capsys, 2, "submit", package, *TEXT
    )
    monkeypatch.setattr(api, "carry_out", lambda *_: ["ok"])
    assert "as Kubeflow Pipelines 2" in failed(capsys, 2, "schedule", "list")


def test_nothing_there(capsys, api, package, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        line = failed(capsys, 2, "submit", package, *TEXT, "--endpoint", endpoint)
    assert line == f"pfs: nothing answers at {endpoint}; check --endpoint and the network"
    assert "cannot be trusted" in failed(capsys, 2, "submit", package, *TEXT, "--endpoint", f"https{api.endpoint[4:]}")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert "give --endpoint URL or set KF_PIPELINES_ENDPOINT" in failed(capsys, 2, "submit", package, *TEXT)


@pytest.mark.parametrize(
    "endpoint", ["kubeflow.test", "ftp://x", "http://", "http://u:s3cr3t@x", "http://x:port", "http://x/?t=s3cr3t"]
)
def test_a_wrong_endpoint_is_refused_and_not_repeated(capsys, api, package, endpoint):
    line = failed(capsys, 2, "submit", package, *TEXT, "--endpoint", endpoint)
    assert "the endpoint must be an address" in line
    assert "s3cr3t" not in line


def test_token_and_cookies_come_from_the_environment(capsys, api, package, monkeypatch):
    api.token = "s3cr3t-token"
    assert "(401)" in failed(capsys, 2, "submit", package, *TEXT)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "s3cr3t-token\n")
    monkeypatch.setenv("KF_PIPELINES_COOKIES", "authservice_session=abcdef")
    assert main(["submit", str(package), *TEXT]) == 0
    assert api.headers["Cookie"] == "authservice_session=abcdef"
    assert "s3cr3t" not in "".join(capsys.readouterr())
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "s3cr3t\ntoken")
    line = failed(capsys, 2, "submit", package, *TEXT)
    assert "KF_PIPELINES_TOKEN holds characters" in line
    assert "s3cr3t" not in line


def test_a_token_file_is_read_again_for_every_request(capsys, api, package, monkeypatch, tmp_path):
    file = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    assert "token file" in failed(capsys, 2, "submit", package, *TEXT)
    file.write_text("first-token\n")
    api.token = "first-token"
    carry_out = api.carry_out

    def renewed(method, path, *rest):
        found = carry_out(method, path, *rest)
        if path.endswith("/experiments") and method == "POST":
            api.token = "second-token"
            file.write_text("second-token")
        return found

    monkeypatch.setattr(api, "carry_out", renewed)
    submitted(capsys, package, *TEXT)
    assert len(api.runs) == 1
    assert api.token == "second-token"


def test_a_pod_uses_its_own_token_for_its_own_cluster_alone(capsys, api, package, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("pod-token")
    monkeypatch.setattr(credentials, "_POD_TOKEN", str(tmp_path / "token"))
    for module in (client, credentials):
        monkeypatch.setattr(module, "IN_CLUSTER", api.endpoint)
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    api.token = "pod-token"
    assert submitted(capsys, package, *TEXT)["run_id"]
    other = api.endpoint.replace("127.0.0.1", "localhost")
    assert "(401)" in failed(capsys, 2, "submit", package, *TEXT, "--endpoint", other)
    assert "Authorization" not in {name.title() for name in api.headers}


def test_many_users_need_a_namespace(capsys, api, package, monkeypatch, tmp_path):
    api.namespaces = ("team-a", "kubeflow")
    assert "say which namespace is yours: --namespace NAME" in failed(capsys, 2, "submit", package, *TEXT)
    for namespace in api.namespaces:
        facts = submitted(capsys, package, *TEXT, "--namespace", namespace)
        assert api.experiments[facts["experiment_id"]]["namespace"] == namespace
    line = failed(capsys, 2, "submit", package, *TEXT, "--namespace", "team-b")
    assert "(400 at GET /apis/v2beta1/pipelines): a namespace is required" in line
    pod = tmp_path / "namespace"
    pod.write_text("team-a\n")
    monkeypatch.setattr(kfp.client.Client, "_NAMESPACE_PATH", str(pod))
    assert submitted(capsys, package, *TEXT)["run_id"]
    assert not (tmp_path / "home").exists()


def test_another_package_has_another_version_and_the_same_the_same():
    spec = [{"pipelineInfo": {"name": "x"}}]
    assert Package(b"a", spec).version == Package(b"a", spec).version
    assert Package(b"a", spec).version != Package(b"b", spec).version


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"pipeline": "x"}, "unknown field pipeline"),
        ({"display_name": 3}, "must be str"),
        ({"mode": "ON"}, "must be one of"),
        ({"trigger": {"cron_schedule": {"cron": "* * * * * *", "zone": "UTC"}}}, "unknown field zone"),
    ],
)
def test_the_api_of_these_tests_refuses_what_the_models_do_not_know(body, reason):
    with pytest.raises(RefusedError, match=reason):
        check(body, "V2beta1RecurringRun", "run")
