"""What only a Secret holds is in no result, in no log and nowhere in MLflow."""

import json
import os
import subprocess
import sys

from tests.pipelines.brief import SETTINGS
from tests.servers import mlflow_server

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
CODE = """
import json, sys
from pfs_core import steps
from pfs_core.runtime.logs import log_to_terminal
log_to_terminal()
from pfs_core.config.request import CompressRequest
request = json.loads(sys.argv[1])
settings = lambda stage: ("", request[f"{stage}_settings"])
steps.check(CompressRequest.parse(request, "request"))
steps.split("digits", "split", *settings("split"))
steps.search("resnet20", "split", "gates", "macs=0.5", *settings("search"), request["model_settings"])
steps.extract("gates", "structures")
steps.retrain("structures/structure.json", "split", "model", *settings("retrain"))
steps.benchmark(["structures/structure.json"], "latency", *settings("latency"))
steps.report("split", "gates", "structures", ["model"], "latency", "report")
steps.close("COMPLETE")
"""


def test_all_steps_write_no_secret_anywhere(tmp_path):
    with mlflow_server(tmp_path) as address:
        own = {"MLFLOW_TRACKING_URI": address.replace("://", f"://me:{LOGIN}@"), "KFP_RUN_ID": "secret-1", **SECRETS}
        command = [sys.executable, "-c", CODE, json.dumps(REQUEST)]
        done = subprocess.run(command, env=os.environ | own, cwd=tmp_path, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    assert "search epoch 1/1" in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"report.html", "mlflow.db"} <= {path.name for path in files}
    for value in (*SECRETS.values(), LOGIN):
        assert value not in text
        assert not [path for path in files if value.encode() in path.read_bytes()], value
