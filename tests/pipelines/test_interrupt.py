"""Ctrl-C at a terminal: a run writes its checkpoint and says how to go on; once more ends it at once."""

import os
import pty
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow import MlflowClient
from pfs_pipelines.run_folders import LOG, remove_new

from pfs_core.runtime.logs import COLUMNS
from tests.pipelines.test_run import RUN

COMMAND = (*RUN, "--set", "search.epochs=2000")
CTRL_C = b"\x03"


class Terminal:
    """A process that a person has started at a terminal of 80 columns."""

    def __init__(self, command, cwd):
        self.text = b""
        pid, self.master = pty.fork()
        if pid == 0:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # which whoever started the tests may ignore
                signal.signal(number, signal.SIG_DFL)
            os.chdir(cwd)
            kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            os.execve(command[0], command, {**kept, "COLUMNS": str(COLUMNS)})
        self.pid = pid

    def read(self):
        """Read on; returns whether there may be more."""
        try:
            self.text += os.read(self.master, 4096)
        except OSError:  # nobody has the other end any more
            return False
        return True

    def until(self, words):
        while words not in self.text:
            assert self.read(), self.text.decode()

    def press(self, key):
        os.write(self.master, key)

    def close(self):
        """Close its window; returns the exit code."""
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self):
        """Read to the end; returns the exit code."""
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def in_mlflow(work):
    """The status of every run in the store, by its step."""
    mlflow.set_tracking_uri(f"sqlite:///{work / 'pfs-runs' / 'mlflow.db'}")
    found = MlflowClient().search_runs([mlflow.get_experiment_by_name("pfs-resnet20").experiment_id])
    return {run.data.tags["pfs.step"]: run.info.status for run in found}


def test_ctrl_c_stops_after_a_checkpoint_the_same_command_goes_on_and_a_second_one_leaves_no_process(tmp_path):
    terminal = Terminal(COMMAND, tmp_path)
    terminal.until(b"search epoch 3/")
    terminal.press(CTRL_C)
    assert terminal.ended() == 130
    said = terminal.text.decode()
    assert "stopping: the step that runs writes a checkpoint (once more stops it at once)" in said
    assert "; start again to go on" in said
    assert said.rstrip().endswith("stopped; the same command goes on from there")
    assert "retrain pruned" not in said
    assert "Traceback" not in said
    assert in_mlflow(tmp_path) == {"pipeline": "KILLED", "split": "FINISHED", "search": "KILLED"}
    assert max(len(line) for line in said.splitlines() if not line.startswith("full log: ")) <= COLUMNS
    again = Terminal(COMMAND, tmp_path)
    again.until(b"search epoch ")
    again.press(CTRL_C)
    again.until(b"stopping")
    again.press(CTRL_C)
    assert again.ended() == 130
    assert b"going on in pfs-runs/resnet20-digits-macs0.5-seed0-" in again.text
    assert b"going on from checkpoint" in again.text
    assert b"search epoch 1/" not in again.text
    while of_this_run(tmp_path):
        time.sleep(0.05)


def test_what_is_stopped_before_anything_was_begun_leaves_no_folder_and_says_so(tmp_path):
    terminal = Terminal(COMMAND, tmp_path)
    while not list(tmp_path.glob("pfs-runs/*/run.json")):
        time.sleep(0.01)
    time.sleep(0.5)  # its pipeline has been started, and is importing
    terminal.press(CTRL_C)
    assert terminal.ended() == 130
    said = terminal.text.decode()
    assert said.rstrip().endswith("stopped before anything was begun")
    assert "checkpoint" not in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("pfs-runs/*/run.json"))


@pytest.mark.parametrize("name", ["model-pruned", "steps"])
def test_a_folder_with_anything_else_in_it_is_never_removed(tmp_path, name):
    for file in ("run.json", LOG):
        (tmp_path / file).touch()
    (tmp_path / name).mkdir()
    remove_new(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["run.json", LOG, name])


def of_this_run(folder):
    """The processes that work in a folder."""
    done = subprocess.run([sys.executable, "-c", SEARCH, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.split()


SEARCH = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.readlink(f"/proc/{pid}/cwd") == sys.argv[1]:
            print(pid)
    except OSError:
        pass
"""
