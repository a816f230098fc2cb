"""Pipelines run by kfp.local in a process of their own, on the digits and with settings that take seconds."""

import json
import os
import subprocess
import sys

SETTINGS = {
    "model_settings": {"width": 4},
    "search_settings": {"epochs": 1},
    "retrain_settings": {"epochs": 1, "scratch_b": False},
    "latency_settings": {
        "patience_seconds": 0,
        "max_seconds": 0.1,
        "min_rounds": 64,
        "runtimes": ["eager"],
        "threads": 1,
    },
}
CODE = """
import json, sys
from pathlib import Path
from kfp import local
from pfs_core import tracking
from pfs_pipelines import forked
from pfs_pipelines.packages import PIPELINES
from pfs_pipelines.pools import Placement, for_form
name, root, arguments = sys.argv[1:]
forked.start()
forked.call(tracking.make_experiment, Path("artifacts").absolute(), json.loads(arguments).get("model", "resnet20"))
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
PIPELINES[name](Placement(local=True))(**for_form(json.loads(arguments)))
"""


def run_pipeline(name, root, store, run_id, environment=None, **arguments):
    """The finished process; its results are below ``root``, its runs in the MLflow store."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    env |= {"MLFLOW_TRACKING_URI": store, "KFP_RUN_ID": run_id, **(environment or {})}
    command = [sys.executable, "-c", CODE, name, str(root), json.dumps(arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=root.parent)
