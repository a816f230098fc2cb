"""What only a Secret holds is in no result, in no log and nowhere in MLflow."""

import mlflow
import pytest

from pfs_core import steps
from pfs_core.config.request import CompressRequest
from tests.pipelines.brief import SETTINGS

SECRETS = {
    "AWS_ACCESS_KEY_ID": "access-7f3a91",
    "AWS_SECRET_ACCESS_KEY": "secret-52c8d0",
    "MLFLOW_TRACKING_TOKEN": "token-e06b4d",
}
LOGIN = "password-c41f77"
REQUEST = {
    "model": "resnet20",
    "dataset": "digits",
    "budgets": ["macs=0.5"],
    "networks": ["pruned"],
    "recipe": "",
    "seed": 0,
    "split_settings": {},
    "extract_settings": {},
    **SETTINGS,
}


def all_steps():
    """The steps of a pipeline, with their results in the current directory."""
    steps.check(CompressRequest.parse(REQUEST, "request"))
    steps.split("digits", "split", *settings("split"))
    steps.search("resnet20", "split", "gates", "macs=0.5", *settings("search"), REQUEST["model_settings"])
    steps.extract("gates", "structures")
    steps.retrain("structures/structure.json", "split", "model", *settings("retrain"))
    steps.benchmark(["structures/structure.json"], "latency", *settings("latency"))
    steps.report("split", "gates", "structures", ["model"], "latency", "report")
    steps.close("COMPLETE")


def settings(stage):
    return "", REQUEST[f"{stage}_settings"]


@pytest.fixture
def secrets(mlflow_address, monkeypatch):
    """The environment of a step with all that only a Secret holds."""
    address = mlflow_address.replace("://", f"://me:{LOGIN}@")
    for name, value in {"MLFLOW_TRACKING_URI": address, "KFP_RUN_ID": "secret-1", **SECRETS}.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(address)
    yield
    mlflow.set_tracking_uri(None)


def test_all_steps_write_no_secret_anywhere(secrets, tmp_path, mlflow_folder, monkeypatch, capfd):
    """With a server, its login and its token; test_run.py looks for the others in all that a whole run leaves."""
    monkeypatch.chdir(tmp_path)
    all_steps()
    text = "".join(capfd.readouterr())
    assert "search epoch 1/1" in text
    files = [path for folder in (tmp_path, mlflow_folder) for path in folder.rglob("*") if path.is_file()]
    assert {"report.html", "mlflow.db", "server.log"} <= {path.name for path in files}
    for value in (*SECRETS.values(), LOGIN):
        assert value not in text
        assert not [path for path in files if value.encode() in path.read_bytes()], value
