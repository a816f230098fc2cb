"""Ways in which a step that trains can fail, and what becomes of it; without pytest, since a container runs it too."""

import subprocess
import sys

HARNESS = """
import os, signal, sys
from pathlib import Path
from pfs_core.errors import UserError
from pfs_core.runtime.progress import reached, user_errors
from pfs_core.runtime.supervise import supervised

class OutOfMemoryError(RuntimeError): pass  # named as torch's is

tries = Path(sys.argv[1])

def fail(how, step=0):
    if step:
        reached(step)
    if isinstance(how, int):
        os.kill(os.getpid(), how)
    raise how

def work():
    count = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (count + 1))
    failures = FAILURES
    if count < len(failures):
        fail(*failures[count])
    return {"tries": count + 1}

with user_errors():
    print("result", supervised(work))
"""


CASES = [
    ("[]", 0, 1, "result {'tries': 1}"),
    ("[(9, 3)]", 0, 2, "after step 3 by SIGKILL, perhaps since it took more memory than it may; it is started again"),
    ("[(11, 3)]", 0, 2, "after step 3 by SIGSEGV; it is started again (1 of 3)"),
    ("[(9,)]", 0, 2, "before its first step by SIGKILL"),
    ("[(RuntimeError('CUDA error: unspecified launch failure'), 5)]", 0, 2, "CUDA error: unspecified launch"),
    ("[(OutOfMemoryError('CUDA out of memory. Tried to'), 5)]", 0, 2, "OutOfMemoryError: CUDA out of memory"),
    ("[(RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '), 5)]", 0, 2, "reads images"),
    ("[(9, 1), (9, 2), (11, 2)]", 0, 4, "(3 of 3)"),
    ("[(9, 1), (9, 2), (9, 3), (9, 4)]", 1, 4, "ended 4 times, the last time by SIGKILL"),
    ("[(9, 7), (9, 7)]", 1, 2, "ended again after step 7 by SIGKILL"),
    ("[(OutOfMemoryError('at'), 7), (9, 8), (OutOfMemoryError('at'), 7)]", 1, 3, "ended again after step 7"),
    ("[(UserError('the budget is wrong'),)]", 2, 1, "error: the budget is wrong"),
    ("[(RuntimeError('a bug'),)]", 1, 1, "RuntimeError: a bug"),
    ("[(SystemExit(143),)]", 143, 1, ""),
    ("[(15, 3)]", 143, 1, ""),
]
"""How each try fails; the exit code, the number of tries, and what is said."""


def run(tmp_path, failures):
    """Exit code, number of tries and output of a step that fails in these ways before it succeeds."""
    tries = tmp_path / "tries"
    code = HARNESS.replace("FAILURES", failures)
    output = tmp_path / "output"  # and no pipe, which an orphan would keep open
    with output.open("w") as file:
        command = [sys.executable, "-c", code, tries]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode, len(tries.read_text()), output.read_text()
