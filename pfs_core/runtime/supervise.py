"""A step that trains, in a process of its own that is started again where it is worth it.

Kubeflow tries a pod again that is gone, but not a process that was killed in a pod that lives.
"""

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError
from pfs_core.runtime import progress
from pfs_core.runtime.progress import stoppable, stopped_later

logger = logging.getLogger(__package__)

RESTARTS = 3
"""How often a process is started again at most."""
_LOOK_SECONDS = 0.5
_WRONG = 2
_PASSING = 75  # what sysexits.h calls a temporary failure
_KILLED_WORKER = re.compile(r"DataLoader worker .* is killed by signal: (Killed|Segmentation fault)")
_DEVICE_ERRORS = ("OutOfMemoryError", "AcceleratorError", "DistBackendError")


def supervised(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work of a step in a process of its own, and start that again if it is killed or its device fails.

    It goes on from its checkpoint, at most :data:`RESTARTS` times. What is the user's to put right is final at once,
    and so is a failure that comes back at the same step. SIGTERM goes on to the process.

    A process whose torch may have started threads, which a fork would lose, does the work itself, and so do the
    processes of ``torchrun``, which has its own supervision.

    Args:
        work: does the work; returns plain JSON values.

    Raises:
        UserError: the work has raised one.
        SystemExit: the work has failed in another way, and said how.
    """
    if "RANK" in os.environ or not hasattr(os, "fork") or ("torch" in sys.modules and not _has_one_thread()):
        return work()
    with stoppable():
        return _restarted(work)


def _has_one_thread() -> bool:
    """Whether this process has a single thread, as far as the system tells."""
    threads = Path("/proc/self/task")
    return threads.is_dir() and len(list(threads.iterdir())) == 1


def _restarted(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    seen = set()
    for restart in range(RESTARTS + 1):
        code, said, step = _attempt(work)
        if code == _WRONG:
            raise UserError(said)
        if code == 0 and not said:
            logger.error("the process ended with 0 before it was done; does the network's code call os._exit?")
            raise SystemExit(1)
        if code == 0:
            result: dict[str, Any] = json.loads(said)
            return result
        reason = said if code == _PASSING else _signal(code)
        if not reason:
            raise SystemExit(code if code > 0 else 128 - code)
        where = f"after step {step}" if step >= 0 else "before its first step"
        if (reason, step) in seen:
            logger.error(f"the process was ended again {where} by {reason}: it would be once more")
            raise SystemExit(1)
        seen.add((reason, step))
        if restart < RESTARTS:
            count = f"{restart + 1} of {RESTARTS}"
            logger.warning(f"the process was ended {where} by {reason}; it is started again ({count})")
    logger.error(f"the process was ended {RESTARTS + 1} times, the last time by {reason}")
    raise SystemExit(1)


def _attempt(work: Callable[[], dict[str, Any]]) -> tuple[int, str, int]:
    """Do the work in a process; returns its exit code, what it has sent, and its last step (-1 if there was none)."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    step = context.Value("q", -1, lock=False)
    process = context.Process(target=_work, args=(work, sender, step))
    try:
        with stopped_later():
            process.start()
        sender.close()
        # Whether it lives is asked, too: processes that it has started may keep the pipe open when it is killed.
        while not receiver.poll(_LOOK_SECONDS) and process.is_alive():
            pass
        said = receiver.recv_bytes().decode() if receiver.poll() else ""
        process.join()
    except EOFError:  # it ended without a word
        said = ""
        process.join()
    except BaseException:
        if process.pid is not None:
            process.terminate()
            process.join()  # until it has written its checkpoint
        raise
    return process.exitcode or 0, said, step.value


def _work(work: Callable[[], dict[str, Any]], sender: Connection, step: Any) -> None:
    """What the process does."""
    progress.position = step
    try:
        with stoppable():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            said, code = json.dumps(work()), 0
    except UserError as e:
        said, code = str(e), _WRONG
    except Exception as e:
        if not (reason := _device_error(e)):
            raise
        traceback.print_exc()
        said, code = reason, _PASSING
    sender.send_bytes(said.encode())
    raise SystemExit(code)


def _device_error(error: Exception) -> str:
    """Return what failed if it was the device or a loader's worker and may not fail again; else an empty text."""
    first_line = str(error).partition("\n")[0]
    names = {kind.__name__ for kind in type(error).__mro__}
    if names.intersection(_DEVICE_ERRORS) or first_line.startswith(("CUDA error", "CUDA out of memory", "HIP error")):
        return f"an error of the device ({type(error).__name__}: {first_line})"
    if _KILLED_WORKER.search(first_line):
        return f"the end of a process that reads images ({first_line})"
    return ""


def _signal(code: int) -> str:
    """Return which signal ended a process, if one did that is worth another try; else an empty text."""
    if code >= 0 or -code in (signal.SIGTERM, signal.SIGINT):
        return ""
    name = signal.Signals(-code).name
    memory = ", perhaps since it took more memory than it may" if -code == signal.SIGKILL else ""
    return f"{name}{memory}"
