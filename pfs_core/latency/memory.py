"""The memory that a network needs for inference, measured in a process of its own (Linux)."""

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
"""Forward passes that the peak is taken over, after one that allocates what is kept between passes."""


def peak_memory(jobs: Sequence[dict[str, Any]]) -> list[float | None]:
    """Measure the peak resident memory of each job while it runs, in MiB.

    The memory of the process before the network was loaded is subtracted. So the weights, the runtime's own structures
    and the activations count; libraries, and memory that only loading needs, do not.

    Args:
        jobs: ``runtime``, ``folder``, ``threads`` and ``batch`` of each job.

    Returns:
        One number per job; None where the system has no such counters, or where the network did not run.
    """
    if not Path("/proc/self/clear_refs").exists():
        return [None] * len(jobs)
    # A fresh interpreter: this process has threads of torch and of the runtimes, with which a fork is not safe.
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(  # noqa: S603 - our own interpreter and module; a network of the user's may print anything
        command, input=json.dumps(list(jobs)), capture_output=True, errors="replace", check=False
    )
    if done.returncode:
        return [None] * len(jobs)
    result: list[float | None] = json.loads(done.stdout.splitlines()[-1])
    return result


def _main() -> None:
    from pfs_core.latency import runtimes
    from pfs_core.latency.networks import input_shape

    jobs = json.load(sys.stdin)
    needed = {job["runtime"] for job in jobs} & {"onnxruntime", "openvino"}
    for library in ("torch._dynamo", "torch.fx.experimental.optimization", *sorted(needed)):
        importlib.import_module(library)  # once, before the forks; none starts threads before it is used
    input_shape(Path(jobs[0]["folder"]))  # which traces the network, and none of its structures again
    _free()
    gc.freeze()  # a fork that collects garbage would otherwise touch, and so copy, all of this process's memory
    print(json.dumps([_forked(runtimes, job) for job in jobs]))  # noqa: T201 - the answer to peak_memory


def _forked(runtimes: Any, job: dict[str, Any]) -> float | None:
    """Measure a job in a fork of this process, so that no job's memory is reused by the next one."""
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
    """Measure a job in this process, in MiB."""
    import numpy as np

    from pfs_core.latency.networks import input_shape, read_network

    folder = Path(job["folder"])
    images = np.zeros((job["batch"], *input_shape(folder)), np.float32)
    runtimes.RUNTIMES[job["runtime"]](folder, images, job["threads"])()  # loads what the libraries need for a network
    read_network.cache_clear()
    _free()
    before = _status("VmRSS")
    run = runtimes.RUNTIMES[job["runtime"]](folder, images, job["threads"])
    run()
    _free()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(_RUNS):
        run()
    return (_status("VmHWM") - before) / 1024


def _free() -> None:
    """Give memory back to the system that is free but still allocated: it would count, or hide what a network takes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    """Return a counter of this process in KiB."""
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1])


if __name__ == "__main__":
    _main()
