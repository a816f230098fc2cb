"""A request file becomes one version of a registered model, whoever looks at it."""

import json
import subprocess
import sys
import uuid

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from pfs_core import steps
from pfs_core.errors import UserError
from pfs_core.registry.claims import Claim
from pfs_core.registry.specs import ModelTags, register_files
from pfs_core.registry.work import find
from pfs_core.steps.lifecycle import check_waiting as check
from pfs_core.storage import LocalStorage


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
        ('{"name": "..", "model": "resnet20", "dataset": "digits"}', "one.json.name"),
        ('{"name": "..n", "model": "resnet20", "dataset": "digits"}', "one.json.name"),
        (
            f'{{"name": "{250 * "n"}", "model": "resnet20", "dataset": "digits"}}',
            "name: must be a text of 1 to 249 char",
        ),
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


def test_a_folder_that_is_not_there_is_refused(tmp_path, registry):
    with pytest.raises(UserError, match="does not exist"):
        register_files(str(tmp_path / "none"), "run-1")


def test_a_prefix_of_a_bucket_without_files_has_no_requests(bucket, registry, capsys):
    register_files(f"{bucket}/requests", "run-1")
    assert f"no request files: {bucket}/requests holds no objects" in capsys.readouterr().out


def test_a_file_that_is_removed_after_the_listing_does_not_hold_up_the_others(
    tmp_path, name, registry, capsys, monkeypatch
):
    write(tmp_path, "one.json", name=name)
    write(tmp_path, "two.json", name=name, budget="macs=0.3")
    read = LocalStorage.read

    def removing(self, entry, *args):
        (tmp_path / "one.json").unlink(missing_ok=True)
        return read(self, entry, *args)

    monkeypatch.setattr(LocalStorage, "read", removing)
    register_files(str(tmp_path), "run-1")
    assert "one.json was changed or removed just now; the next run looks again" in capsys.readouterr().out
    (version,) = registry.search_model_versions(f"name = '{name}'")
    assert version.tags["pfs.budget"] == "macs=0.3"


def test_what_mlflow_refuses_is_left_out_and_the_claim_is_given_back(tmp_path, name, registry, capsys, monkeypatch):
    write(tmp_path, "one.json", name=name)
    write(tmp_path, "two.json", name=f"{name}-2")
    create = MlflowClient.create_model_version

    def refusing(self, of, *args, **more):
        if of == name:
            raise MlflowException("a tag is too long", INVALID_PARAMETER_VALUE)
        return create(self, of, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", refusing)
        register_files(str(tmp_path), "run-1")
    assert "one.json: MlflowException: a tag is too long" in capsys.readouterr().out
    assert len(registry.search_model_versions(f"name = '{name}-2'")) == 1
    register_files(str(tmp_path), "run-2")
    assert len(registry.search_model_versions(f"name = '{name}'")) == 1


def test_a_file_that_another_run_registers_is_said_to_be_left_to_it(tmp_path, name, registry, capsys):
    write(tmp_path, "one.json", name=name)
    registry.create_registered_model(name)
    assert Claim(ModelTags(name), "run-0", hours=1).take()
    register_files(str(tmp_path), "run-1")
    assert "one.json is left to another run" in capsys.readouterr().out
    assert registry.search_model_versions(f"name = '{name}'") == []


def test_an_mlflow_that_does_not_answer_is_an_error_and_not_a_file_that_is_left_out(
    tmp_path, name, registry, monkeypatch
):
    write(tmp_path, "one.json", name=name)

    def away(self, of):
        raise MlflowException("no answer", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(MlflowClient, "create_registered_model", away)
    with pytest.raises(MlflowException):
        register_files(str(tmp_path), "run-1")


@pytest.mark.parametrize("missing", ["MLFLOW_TRACKING_URI", "KFP_RUN_ID"])
def test_without_a_server_or_a_run_nothing_is_looked_at(tmp_path, name, monkeypatch, missing):
    (tmp_path / "requests").mkdir()
    write(tmp_path / "requests", "one.json", name=name)
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "KFP_RUN_ID"):
        monkeypatch.setenv(variable, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=f"set {missing}"):
        steps.find_requests(5, 1, "requests")
    assert [path.name for path in tmp_path.iterdir()] == ["requests"]
