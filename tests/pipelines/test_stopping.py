"""A run that is stopped in a loop of its pipeline, whose steps kfp runs in threads, lets its step end and begins none.

The pipeline is one of short steps; ``pfs run``, the process of the pipeline and kfp are what they are.
"""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from kfp.local.status import Status
from pfs_pipelines import forked

from pfs_core.runtime.progress import STOPPED
from tests.pipelines.test_claim import RUN, state

PIPELINE = """#!{python}
import sys
from pathlib import Path

def main():
    from kfp import dsl
    from pfs_core import tracking
    from pfs_pipelines import compress, forked, local

    @dsl.component(base_image="python", install_kfp_package=False)
    def train(network: str):
        import pathlib, time
        from pfs_core.runtime.progress import user_errors
        with user_errors():
            try:
                pathlib.Path(network).touch()
                time.sleep(60)
            finally:
                pathlib.Path(f"{{network}} saved").touch()

    @dsl.pipeline(name="trains")
    def trains():
        with dsl.ParallelFor(["dense", "pruned"], parallelism=1) as network:
            train(network=network)

    forked.PRELOAD = ("kfp.dsl.executor_main",)
    forked.call = tracking.close_pipeline = lambda *_, **__: None
    local.check, local.first_lines = lambda *_: None, lambda _: []
    compress.define = lambda place: lambda **_: trains()
    sys.argv = sys.argv[2:]
    Path(sys.argv[1]).with_name("steps").mkdir()
    local.main()

if __name__ == "__main__":  # the processes of the steps read this file too
    main()
"""
"""Stands for the interpreter, which is given ``-m pfs_pipelines.local``, the request and the id of ``pfs run``."""


@pytest.fixture
def training(tmp_path):
    """``pfs run`` while its pipeline trains the first of two networks."""
    pipeline = tmp_path / "pipeline"
    pipeline.write_text(PIPELINE.format(python=sys.executable))
    pipeline.chmod(0o700)
    command = [sys.executable, "-c", RUN, str(pipeline)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while not (tmp_path / "dense").exists():
            assert run.poll() is None, run.stdout.read()
            time.sleep(0.01)
        yield run
        run.kill()


class Step:
    """Stands for a process that is stopped before whoever starts it knows of it; ``done`` gets what is done with it."""

    def __init__(self, done):
        self.done = done

    def start(self):
        forked.stop()
        self.done.append("started")

    def terminate(self):
        self.done.append("terminated")

    def join(self):
        self.done.append("ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_in_a_loop_is_stopped_in_order(training, tmp_path, number):
    training.send_signal(number)
    training.wait(30)
    deadline = time.monotonic() + 30
    while state(tmp_path) == "running":
        assert time.monotonic() < deadline, "its process outlives it"
        time.sleep(0.05)
    assert (tmp_path / "dense saved").exists()
    assert not (tmp_path / "pruned").exists()


def test_a_step_that_is_being_started_ends_too_and_the_next_one_is_not_started(monkeypatch):
    done = []
    process = Step(done)
    monkeypatch.setattr(forked, "_steps", forked._Steps())
    monkeypatch.setattr(forked.multiprocessing, "get_context", lambda _: SimpleNamespace(Process=lambda **_: process))
    task = SimpleNamespace(full_command=["sh", "-c", "program", "source"], env_vars={})
    for _ in range(2):
        with pytest.raises(SystemExit, match=str(STOPPED)):
            forked.run(task)
    assert done == ["started", "terminated", "ended"]


def test_no_step_is_started_after_one_that_failed(monkeypatch):
    process = Mock(exitcode=2)
    monkeypatch.setattr(forked, "_steps", forked._Steps())
    monkeypatch.setattr(forked.multiprocessing, "get_context", lambda _: SimpleNamespace(Process=lambda **_: process))
    task = SimpleNamespace(full_command=["sh", "-c", "program", "source"], env_vars={})
    assert [forked.run(task), forked.run(task)] == [Status.FAILURE] * 2
    process.start.assert_called_once()
