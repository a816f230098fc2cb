"""The folder of a run is its own as long as one of its processes lives, and none outlives terminal or parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from pfs_pipelines import local
from pfs_pipelines.run_folders import states

from tests.pipelines.test_interrupt import Terminal

RUN = """
import sys
from pathlib import Path
from pfs_core.config.request import CompressRequest
from pfs_pipelines.run import run_pipeline
sys.executable = sys.argv[1]
sys.exit(run_pipeline(CompressRequest(model="resnet20", dataset="digits", budgets=["macs=0.5"]), Path("runs")))
"""
PIPELINE = """#!/bin/sh
echo $$ > pid
mkdir "${3%/*}/steps"
trap 'sleep 0.2; touch saved; exit 143' TERM
echo "[pfs] it runs"
for i in $(seq 300); do sleep 0.1; done
"""
"""Stands for the process of the pipeline: SIGTERM lets it save what it has."""


@pytest.fixture
def command(tmp_path):
    """What starts a run of this pipeline."""
    pipeline = tmp_path / "pipeline"
    pipeline.write_text(PIPELINE)
    pipeline.chmod(0o700)
    return [sys.executable, "-c", RUN, str(pipeline)]


@pytest.fixture
def started(tmp_path):
    """Starts a command and waits until its pipeline runs."""

    def start(*command):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert next(line for line in process.stdout if line == "it runs\n")
        return process

    return start


def state(work):
    (row,) = states(work / "runs")
    return row["state"]


def test_a_run_that_is_killed_has_its_folder_until_its_pipeline_ends(tmp_path, command, started):
    with started(*command) as process:
        process.kill()
    assert state(tmp_path) == "running"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    while state(tmp_path) == "running":
        time.sleep(0.01)
    assert (tmp_path / "saved").exists()


def test_a_terminal_that_is_closed_stops_its_run_in_order(tmp_path, command):
    terminal = Terminal(command, tmp_path)
    terminal.until(b"it runs")
    assert terminal.close()
    assert (tmp_path / "saved").exists()
    assert state(tmp_path) == "stopped"


def test_a_terminal_may_say_twice_that_it_is_closed(tmp_path, command, started):
    with started(*command) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline().startswith("stopping")
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


def test_a_run_that_is_told_to_outlive_its_terminal_does(tmp_path, command, started):
    with started("nohup", *command) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()


def test_the_pipeline_ends_with_the_process_that_has_started_it(monkeypatch):
    class StoppedError(Exception):
        pass

    def stop(number, frame):
        raise StoppedError

    before = signal.signal(signal.SIGTERM, stop)
    parents = iter([7, 7, 1])
    monkeypatch.setattr(local, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(local.os, "getppid", lambda: next(parents))
    try:
        with pytest.raises(StoppedError):
            local.end_with(7, threading.get_ident())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(parents) == []
