"""A step that trains is started again where it is worth it, in a process that has not loaded torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfs_core.config.recipes import recipe
from pfs_core.methods.registry import method_config
from pfs_core.methods.run import search
from pfs_core.runtime.supervise import supervised
from tests.failing import CASES, run


@pytest.mark.parametrize(
    ("failures", "code", "tries", "said"),
    CASES,
)
def test_what_is_worth_another_try_and_what_is_final(tmp_path, failures, code, tries, said):
    found = run(tmp_path, failures)
    assert found[:2] == (code, tries), found[2]
    assert said in found[2]


def test_what_it_has_started_does_not_hide_that_it_was_killed(tmp_path):
    """A data loader's workers outlive it for a while, with its end of the pipe."""
    orphan = "(os.fork() == 0 and (__import__('time').sleep(20), os._exit(0)), 9)[1]"
    started = time.monotonic()
    code, tries, said = run(tmp_path, f"[({orphan}, 3)] if count == 0 else []")
    assert (code, tries) == (0, 2), said
    assert time.monotonic() - started < 20


WAITING = """
import sys, time
from pathlib import Path
from pfs_core.runtime.progress import user_errors
from pfs_core.runtime.supervise import supervised

def work():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1]).write_text("saved")
    return {}

with user_errors():
    supervised(work)
"""


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()"])
def test_a_process_that_ends_well_before_it_is_done_has_failed(end):
    code = WAITING.partition("def work")[0] + f"import os\nwith user_errors():\n    supervised(lambda: {end})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "the process ended with 0 before it was done; does the network's code call os._exit?\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, said, "")


@pytest.mark.parametrize("group", [False, True], ids=["to the supervisor", "to all processes"])
def test_sigterm_goes_on_to_the_process_and_is_waited_for(tmp_path, group):
    saved = tmp_path / "saved"
    command = [sys.executable, "-c", WAITING, saved]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "started\n"
        (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
        assert process.wait(20) == 143
    assert saved.read_text() == "saved"


FORKED = """
import os, signal, sys, threading, time
from pfs_core.runtime.progress import user_errors
from pfs_core.runtime.supervise import supervised

def fork(real=os.fork):
    if pid := real():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    return pid

def work():
    time.sleep(20)
    print("went on", flush=True)

os.fork = fork
if sys.argv[1] == "threads":
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
with user_errors():
    supervised(work)
"""


@pytest.mark.parametrize("beside", ["nothing", "threads"])
def test_sigterm_while_the_process_is_forked_stops_it_too(beside):
    done = subprocess.run([sys.executable, "-c", FORKED, beside], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")
    assert "went on" not in done.stdout


def test_a_process_that_cannot_be_forked_says_why(monkeypatch):
    def full():
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("pfs_core.runtime.supervise._has_one_thread", lambda: True)
    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(BlockingIOError):
        supervised(dict)


def test_a_process_that_has_loaded_torch_does_the_work_itself():
    assert "torch" in sys.modules or __import__("torch")
    assert supervised(lambda: {"process": os.getpid()}) == {"process": os.getpid()}


def test_processes_of_torchrun_are_not_supervised_twice():
    code = (
        "import os; os.environ['RANK'] = '0'\nfrom pfs_core.runtime.supervise import supervised\n"
        "print(supervised(lambda: {'pid': os.getpid()})['pid'] == os.getpid())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


COMPONENT = """
import os, sys
from types import SimpleNamespace
from pfs_components.search_gates import search_gates
place = lambda path: SimpleNamespace(path=path)
figures = {}
metrics = SimpleNamespace(log_metric=figures.__setitem__)
settings, model = {"epochs": 2, "batch_size": 128}, {"width": 4}
assert "torch" not in sys.modules
split, gates = place(sys.argv[1]), place(sys.argv[2])
search_gates.python_func("resnet20", split, gates, metrics, recipe="demo", settings=settings, model_settings=model)
assert "torch" not in sys.modules, "the step was not in a process of its own"
print(sorted(figures))
"""


def test_a_killed_trainer_of_a_component_goes_on_and_gives_the_same_bytes(digits, narrow, tmp_path):
    """Killed by signal 9 in its own process, as the kernel kills what takes too much memory."""
    out, checkpoints = tmp_path / "killed", tmp_path / "checkpoints"
    env = {**os.environ, "PFS_CHECKPOINTS": str(checkpoints), "PFS_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-c", COMPONENT, digits, out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        wait_for(checkpoints, process)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "it is started again (1 of 3)" in said
    search(narrow, digits, tmp_path / "whole", config=method_config(recipe("demo"), {"epochs": 2, "batch_size": 128}))
    assert (out / "gates.safetensors").read_bytes() == (tmp_path / "whole" / "gates.safetensors").read_bytes()


def wait_for(checkpoints, process):
    deadline = time.monotonic() + 60
    while not list(checkpoints.rglob("*.pt")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.01)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
