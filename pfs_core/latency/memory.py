"""How much memory a network needs while it answers, each in a process of its own (Linux)."""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_RUNS = 5


def peak_memory(jobs: Sequence[dict[str, Any]]) -> list[float | None]:
    """Peak resident MiB of each job while it runs, less what the process had before the network was loaded.

    Weights, the runtime's own structures and activations are in it; libraries and what loading alone takes are not.

    Args:
        jobs: ``runtime``, ``folder``, ``threads`` and ``batch`` of each.

    Returns:
        A figure a job; None where the system has no such counters, or the network did not run.
    """
    if not Path("/proc/self/clear_refs").exists():
        return [None] * len(jobs)
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=json.dumps(list(jobs)), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return [None] * len(jobs)
    return json.loads(done.stdout.splitlines()[-1])


def _main() -> None:
    from pfs_core.latency import runtimes

    jobs = json.load(sys.stdin)
    needed = {job["runtime"] for job in jobs} & {"onnxruntime", "openvino"}
    for library in ("torch._dynamo", "torch.fx.experimental.optimization", *sorted(needed)):
        importlib.import_module(library)  # once, before the forks; none starts threads before it is used
    print(json.dumps([_forked(runtimes, job) for job in jobs]))  # noqa: T201 - the answer to peak_memory


def _forked(runtimes: Any, job: dict[str, Any]) -> float | None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(Exception), os.fdopen(writer, "w") as out:
            out.write(str(_peak(runtimes, job)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return float(text) if text else None


def _peak(runtimes: Any, job: dict[str, Any]) -> float:
    import numpy as np

    folder = Path(job["folder"])
    images = np.zeros((job["batch"], *runtimes.input_shape(folder)), np.float32)
    before = _status("VmRSS")
    run = runtimes.RUNTIMES[job["runtime"]](folder, images, job["threads"])
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(_RUNS):
        run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1])


if __name__ == "__main__":
    _main()
