"""Whole pipelines that are killed at random moments and started again end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core.storage.artifacts import COMPLETE
from pfs_core.storage.digests import file_digest
from tests.pipelines.brief import CODE, SETTINGS

KILLS = int(os.environ.get("PFS_TEST_KILLS", "20"))
"""How often each pipeline is killed, in one run or several."""
ARGUMENTS = {
    "compress": {"budget": "macs=0.5", "networks": ["pruned", "dense"]},
    "pareto": {"budgets": ["macs=0.6", "macs=0.4"]},
    "compare": {"methods": ["pfs", "uniform"], "budgets": ["macs=0.5"], "seeds": [0, 1]},
}


class Attempts:
    """A pipeline in a folder, which every attempt goes on in as ``pfs run`` does."""

    def __init__(self, name, work):
        arguments = {**ARGUMENTS[name], **SETTINGS}
        if name == "compare":
            del arguments["search_settings"]
        self.root, self.work = work / "run" / "steps", work
        self.store = f"sqlite:///{work / 'mlflow.db'}"
        self.command = [sys.executable, "-c", CODE, name, str(self.root), json.dumps(arguments)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        ours = {"PFS_RUNS": str(work), "PFS_CHECKPOINTS": str(work / "checkpoints"), "PFS_CHECKPOINT_SECONDS": "0"}
        self.environment = {**kept, **ours, "MLFLOW_TRACKING_URI": self.store, "KFP_RUN_ID": "run"}

    def attempt(self, seconds=None):
        """Let it run for so long, or to its end; returns whether it got there."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with (self.work / "log").open("ab") as log:
            process = subprocess.Popen(
                self.command, cwd=self.work, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                assert process.wait(seconds) == 0, (self.work / "log").read_text()[-5000:]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
        return True

    def results(self):
        """Digests of all networks and structures that are whole, and the steps that ended in MLflow, each once."""
        folders = [path.parent for path in self.root.rglob(COMPLETE)]
        files = [f for folder in folders for n in ("model.safetensors", "structure.json") if (f := folder / n).exists()]
        mlflow.set_tracking_uri(self.store)
        experiment = mlflow.get_experiment_by_name("pfs-resnet20").experiment_id
        found = MlflowClient().search_runs([experiment], max_results=1000)
        steps = sorted((run.data.tags["pfs.step"], run.info.run_name) for run in found)
        return {file_digest(file) for file in files}, steps, {run.info.status for run in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_it_ends_as_if_it_had_not_been_killed(name, tmp_path):
    whole = Attempts(name, tmp_path / "whole")
    begun = time.monotonic()
    assert whole.attempt()
    took = time.monotonic() - begun
    moments, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:  # a run may end sooner than the machine was quick before
        runs += 1
        killed = Attempts(name, tmp_path / f"killed-{runs}")
        for _ in range(KILLS - kills):
            if killed.attempt(moments.uniform(0.05, 0.3) * took):
                break
            kills += 1
        else:
            assert killed.attempt()
        assert killed.results() == whole.results()
