"""The steps of a local run, each in a process forked from one that has already imported what steps need.

``kfp.local`` starts a new interpreter a step, and every one of them imports torch, MLflow and kfp again. What a step
does is the same here: kfp's program for components runs its source on its inputs.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_core.runtime.progress import STOPPED

if TYPE_CHECKING:
    from kfp.local import status
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

PRELOAD = (
    "kfp.dsl.executor_main",
    "torch",
    "torchvision",
    "torch.export._trace",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "IPython",  # by which MLflow finds out whether it is in a notebook
    "scipy.stats",
    "matplotlib.figure",
    "onnxscript.function_libs.torch_lib.ops",
    "pfs_core.data.split",
    "pfs_core.latency.benchmarking",
    "pfs_core.methods.pfs.search",
    "pfs_core.report",
    "pfs_core.steps",
    "pfs_core.training.retrain",
    "pfs_pipelines.preloaded",
)
"""What most steps import, which takes seconds; a module that is missing is left out."""
_RUNTIME = "_KFP_RUNTIME"
"""A variable that is set where kfp runs a component; kfp then imports a small part of itself."""


@dataclass
class _Steps:
    """The processes of the steps that run, whichever thread waits for them: kfp has threads of its own for loops."""

    running: set[BaseProcess] = field(default_factory=set)
    stopped: bool = False
    failed: bool = False


_steps = _Steps()


def start() -> None:
    """Start the process that the steps are forked from, and let kfp's runner fork them.

    It imports its modules while the caller goes on, and imports kfp.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    os.environ[_RUNTIME] = "true"
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[_RUNTIME]
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

    SubprocessTaskHandler.run = run


def run(task: "SubprocessTaskHandler") -> "status.Status":
    """Run a step to its end, as kfp's method of this name does; what it prints goes to this process's own output.

    Once a step has failed no other one is started: kfp would go through the rest of a loop before it gives up.

    Raises:
        SystemExit: the steps were stopped (:func:`stop`).
    """
    from kfp.local import status

    _, _, _, source, *arguments = task.full_command
    environment = {**os.environ, **task.env_vars, _RUNTIME: "true"}
    process = multiprocessing.get_context("forkserver").Process(target=_step, args=(source, arguments, environment))
    if not (_steps.stopped or _steps.failed):
        process.start()
        _steps.running.add(process)
        if _steps.stopped:  # while it was started
            process.terminate()
        process.join()
        _steps.running.remove(process)
    if _steps.stopped:
        raise SystemExit(STOPPED)
    _steps.failed |= process.exitcode != 0
    return status.Status.FAILURE if _steps.failed else status.Status.SUCCESS


def stop() -> None:
    """Let the steps that run write their checkpoints and end, and start no other one.

    It may be called at any moment, as by a handler of a signal, and waits for nothing: whoever runs a step learns of it
    when that has ended.
    """
    _steps.stopped = True
    for process in tuple(_steps.running):
        process.terminate()


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process of its own, for which MLflow need not be imported here.

    Raises:
        RuntimeError: the process did not end well; it has said why.
    """
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} failed")


def _step(source: str, arguments: list[str], environment: dict[str, str]) -> None:
    """What the process of a step does.

    Args:
        source: that of the component, with its imports.
        arguments: of kfp's program for components.
        environment: the environment variables.
    """
    os.environ.clear()
    os.environ.update(environment)
    from kfp.dsl.executor_main import executor_main

    with tempfile.TemporaryDirectory() as folder:
        component = Path(folder) / "component.py"
        component.write_text(source, encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(component), *arguments]
        executor_main()
