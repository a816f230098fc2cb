"""Run in a container: a trainer that is killed goes on from its checkpoint, within its step; other failures end it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.failing import CASES, run

STEP = """
import sys
from types import SimpleNamespace
from pfs_components.search_gates import search_gates
place = lambda path: SimpleNamespace(path=path)
metrics = SimpleNamespace(log_metric=lambda name, value: None)
settings, model = {"epochs": 3}, {"width": 4}
search_gates.python_func(
    "resnet20", place("split"), place("gates"), metrics, recipe="demo", settings=settings, model_settings=model
)
"""


def main() -> None:
    """Try every way to fail, and then kill a real search."""
    for failures, code, tries, words in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder), failures)
        assert found[:2] == (code, tries), (failures, found)
        assert words in found[2], (failures, found)
    sys.stdout.write(f"{len(CASES)} ways to fail are told apart in a container\n")
    kill_a_search()


def kill_a_search() -> None:
    """Search, kill the process that searches once it has a checkpoint, and see the step succeed."""
    subprocess.run(["pfs", "split", "digits", "split"], check=True)
    env = {**os.environ, "PFS_CHECKPOINTS": "checkpoints", "PFS_CHECKPOINT_SECONDS": "0"}
    with subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True, env=env) as step:
        deadline = time.monotonic() + 120
        while not list(Path("checkpoints").rglob("*.pt")):
            assert step.poll() is None, "the step ended before it was killed"
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.01)
        (child,) = Path(f"/proc/{step.pid}/task/{step.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        said, _ = step.communicate(timeout=300)
    assert step.returncode == 0, said
    assert "by SIGKILL" in said and "it is started again (1 of 3)" in said, said  # noqa: PT018
    assert Path("gates/complete.json").exists()
    sys.stdout.write("a killed trainer went on in its container\n")


if __name__ == "__main__":
    main()
