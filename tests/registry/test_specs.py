"""A request file becomes one version of a registered model, whoever looks at it."""

import json
import subprocess
import sys
import uuid

import pytest

from pfs_core.errors import UserError
from pfs_core.registry.specs import register_files
from pfs_core.registry.work import find
from pfs_core.steps.lifecycle import check_waiting as check


@pytest.fixture
def name():
    return f"net-{uuid.uuid4().hex[:8]}"


def write(folder, file, **values):
    (folder / file).write_text(json.dumps({"model": "resnet20", "dataset": "digits", **values}))


def test_a_file_is_a_request(tmp_path, name, registry):
    write(tmp_path, "one.json", name=name, budget="macs=0.4", min_speedup=1.2, model_settings={"width": 4})
    register_files(str(tmp_path), "run-1")
    (request,) = find(5, 1, check)
    assert request["source"] == f"models:/{name}/1"
    assert (request["budget"], request["min_speedup"], request["model_settings"]) == ("macs=0.4", 1.2, {"width": 4})


def test_the_same_file_is_one_request_and_a_changed_one_another(tmp_path, name, registry):
    (tmp_path / "one.yaml").write_text(f"{{name: {name}, model: resnet20, dataset: digits}}")
    for _ in range(2):
        register_files(str(tmp_path), "run-1")
    assert len(registry.search_model_versions(f"name = '{name}'")) == 1
    (tmp_path / "one.yaml").write_text(f"{{name: {name}, model: resnet20, dataset: digits, budget: macs=0.3}}")
    register_files(str(tmp_path), "run-2")
    versions = registry.search_model_versions(f"name = '{name}'")
    assert sorted(version.tags.get("pfs.budget", "") for version in versions) == ["", "macs=0.3"]


def test_two_runs_at_once_make_one_request(tmp_path, name, registry, server):
    write(tmp_path, "one.json", name=name)
    code = "import sys\nfrom pfs_core.registry.specs import register_files\nregister_files(*sys.argv[1:])"
    env = {"MLFLOW_TRACKING_URI": server, "PATH": ""}
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"run-{i}"], env=env) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(registry.search_model_versions(f"name = '{name}'")) == 1


def test_over_a_bucket(bucket, store, name, registry):
    body = json.dumps({"name": name, "model": "resnet20", "dataset": "digits"}).encode()
    store.put_object(Bucket=bucket.removeprefix("s3://"), Key="requests/a/one.json", Body=body)
    register_files(f"{bucket}/requests", "run-1")
    assert len(registry.search_model_versions(f"name = '{name}'")) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "one.json is not JSON"),
        ("[]", "one.json: must be an object"),
        ('{"name": "n", "model": "resnet20"}', "one.json.dataset: is missing"),
        ('{"name": "n/1", "model": "resnet20", "dataset": "digits"}', "one.json.name"),
        ('{"name": "n", "model": "resnet20", "dataset": "digits", "size": 1}', "one.json.size is not a setting"),
    ],
)
def test_what_is_no_request_is_left_out_and_the_others_stay(text, says, tmp_path, name, registry, capsys):
    (tmp_path / "one.json").write_text(text)
    write(tmp_path, "two.json", name=name)
    (tmp_path / "notes.txt").write_text("not looked at")
    register_files(str(tmp_path), "run-1")
    assert says in capsys.readouterr().out
    assert len(registry.search_model_versions(f"name = '{name}'")) == 1


def test_a_prefix_that_is_not_there_is_refused(tmp_path, registry):
    with pytest.raises(UserError, match="does not exist"):
        register_files(str(tmp_path / "none"), "run-1")
