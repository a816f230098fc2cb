"""Runs that are started at once in a new folder share the database that the first of them makes."""

import os
import subprocess
import sys

AT_ONCE = """
import sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from pfs_core.tracking import make_experiment
print("ready", flush=True)
sys.stdin.readline()
make_experiment(Path("artifacts").absolute(), sys.argv[1])
"""


def test_two_that_need_the_same_new_database_at_once_both_have_it(tmp_path):
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    both = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE, model], cwd=tmp_path, env=env, text=True, **pipes)
        for model in ("resnet20", "vgg11")
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
