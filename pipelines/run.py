"""``pfs run``: the whole pipeline on this machine, with its progress and the summary on the terminal."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from pfs_pipelines.run_folders import LOG, claimed, remove_new, run_id

from pfs_core.config.request import CompressRequest
from pfs_core.errors import UserError
from pfs_core.runtime.logs import COLUMNS, MARK, MARK_LINES, PASSING_MARK, TERMINAL
from pfs_core.steps.kept import FRESH, RUNS
from pfs_core.storage.artifacts import read_json, write_json

STORE, CHECKPOINTS = "mlflow.db", "PFS_CHECKPOINTS"
OUTPUTS = "outputs.json"
"""What a pipeline writes below ``steps/`` when all steps are done: the folder of each result."""
_CLEAR = "\r\x1b[K"
"""Takes the terminal back to the start of a line, and the line away."""
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # the colours of kfp's own messages


def run_pipeline(request: CompressRequest, store: Path, fresh: bool = False) -> int:
    """Run the pipeline ``compress`` and write its results to a folder in ``store``.

    The folder gets the results once all steps are done; a run that is killed leaves only ``run.json``, ``run.log`` and
    ``steps/`` in it. The same request goes on in that folder then. Steps that another run has done on the same inputs
    are taken from there (:mod:`pfs_core.steps.kept`).

    Args:
        request: what to compress, to a single budget.
        store: the folder of all runs, which also holds the MLflow store and the checkpoints.
        fresh: do every step anew, in a new folder.

    Returns:
        0, or 1 if a step failed.

    Raises:
        UserError: the request cannot be carried out, or ``store`` is a file or cannot be written.
    """
    with claimed(store, request, fresh) as (folder, log):
        return _run(request, folder, log, store, fresh)


def _run(request: CompressRequest, folder: Path, log: TextIO, store: Path, fresh: bool) -> int:
    own_id = run_id(folder)
    run = {
        "id": own_id,
        "arguments": request.arguments(),
        "root": str(folder / "steps"),
        "artifact_root": str(store.absolute() / "artifacts"),
        "log": os.path.relpath(folder / LOG),
    }
    write_json(folder / "run.json", run)
    done = (folder / "steps" / OUTPUTS).exists()  # it was stopped while it collected
    if not done and (code := _follow(request, folder, log, environment(store, own_id, fresh))):
        return code
    collect(folder)
    print_paths(folder, store)
    return 0


def _follow(request: CompressRequest, folder: Path, log: TextIO, env: dict[str, str]) -> int:
    """Do all steps; returns 0, or 1 if one has failed."""
    log_path = folder / LOG
    try:
        code, error = follow(folder / "run.json", env, log)
        if error:
            raise UserError(error)
    except BaseException:
        remove_new(folder)  # refused or stopped before anything was begun
        raise
    if code:
        print(f"pfs: a step failed; the reason is in {log_path}", file=sys.stderr)
        return 1
    if not (folder / "steps" / OUTPUTS).exists():
        print(
            f"pfs: the pipeline's process ended with 0 before it was done; does the code of {request.model} call "
            f"os._exit? What it said last is in {log_path}",
            file=sys.stderr,
        )
        return 1
    return 0


def environment(store: Path, own_id: str, fresh: bool = False) -> dict[str, str]:
    """Return the environment variables of the pipeline's process, which name the MLflow store and the checkpoints.

    A user's own ``MLFLOW_TRACKING_URI`` and ``PFS_CHECKPOINTS`` stay as they are. ``MLFLOW_RUN_ID``, which ``mlflow
    run`` sets, does not: it is one run, into which all steps would write.

    Args:
        store: the folder of all runs.
        own_id: the run's id, by which its steps find their run in MLflow.
        fresh: whether no step may be taken from another run.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri(store)
    ours = {
        "MLFLOW_TRACKING_URI": uri,
        "KFP_RUN_ID": own_id,
        "PYTHONUNBUFFERED": "1",
        MARK_LINES: TERMINAL if sys.stdout.isatty() else "1",
        RUNS: str(store.absolute()),
        **({FRESH: "1"} if fresh else {}),
    }
    theirs = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    return {CHECKPOINTS: str(store.absolute() / ".checkpoints"), **theirs, **ours}


def tracking_uri(store: Path) -> str:
    """Return the address of the MLflow store in a folder of runs."""
    return f"sqlite:///{store.absolute() / STORE}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let each SIGTERM be an exception, the second one too: it stops at once what the first one stops in order.

    A terminal that is closed stops it in order too, however often it says so; under ``nohup`` it does not.
    """

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(run: Path, env: dict[str, str], log: TextIO) -> tuple[int, str]:
    """Run the pipeline's process to its end.

    All its output goes to ``log`` as plain text, without colours and marks; marked lines also go to the terminal. It
    has the log open too, so that the folder stays claimed until both have ended.

    Args:
        run: the ``run.json`` of the run.
        env: environment variables of the process.
        log: the file for the output.

    Returns:
        The exit code of the process, and the message of a UserError, or an empty text if there was none.
    """
    command = [sys.executable, "-m", "pfs_pipelines.local", str(run), str(os.getpid())]
    begun = run.with_name("steps").exists
    with (
        _terminable(),
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            env=env,
            stdin=subprocess.DEVNULL,  # nobody sees what a network's code would ask for
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",  # what a step prints may be anything
            start_new_session=True,
            pass_fds=[log.fileno()],
        ) as process,
    ):
        assert process.stdout is not None
        try:
            error = _copy(process.stdout, log)
        except BaseException as stop:
            clear = _CLEAR if sys.stdout.isatty() else ""
            try:  # a second stop may come as soon as the line is there
                process.terminate()
                writes = ": the step that runs writes a checkpoint" if begun() else ""
                _say(f"{clear}stopping{writes} (once more stops it at once)")
                _copy(process.stdout, log, _say)  # until all of its processes have ended
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            _say("stopped; the same command goes on from there" if begun() else "stopped before anything was begun")
            if isinstance(stop, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            raise
    return process.returncode, error


def _say(text: str, end: str = "\n") -> None:
    """Print to the terminal, unless it is gone."""
    with contextlib.suppress(OSError):
        print(text, end=end, flush=True)


def _copy(output: Iterable[str], log: TextIO, say: Callable[..., None] = partial(print, flush=True)) -> str:
    """Write the lines of the pipeline's process to the log, those that are marked to the terminal as well.

    Args:
        output: the lines.
        log: the log.
        say: prints to the terminal.

    Returns:
        The message of a UserError; empty if there was none.
    """
    error, clear = "", ""
    for line in output:
        plain = _ESCAPES.sub("", line)
        before, mark, text = plain.partition(PASSING_MARK)
        if mark and not before:
            say(f"{_CLEAR}{text.rstrip()[: COLUMNS - 1]}", end="")
            clear = _CLEAR
            continue
        before, mark, text = plain.partition(MARK)
        log.write(before + text)
        log.flush()
        if mark and text.startswith("error: "):
            error = text.removeprefix("error: ").rstrip()
        elif mark:
            say(f"{clear}{text.rstrip()}")
            clear = ""
    say(clear, end="")
    return error


def collect(folder: Path) -> None:
    """Move the results of a finished run from kfp's folders to ``split/``, ``gates/``, ``model-pruned/`` and so on.

    It may be stopped and begun again. What is there of an earlier run is replaced.

    Raises:
        UserError: a result is neither where it was made nor where it belongs.
    """
    steps = folder / "steps"
    for name, place in read_json(steps / OUTPUTS).items():
        path, target = steps / place, folder / name
        if not path.exists():
            if not target.exists():
                raise UserError(f"{folder} has lost its {name}, which was {path}; make it again with --fresh")
            continue  # it was moved before
        if target.exists():
            target.rename(Path(tempfile.mkdtemp(prefix=f".{name}.old-", dir=steps)) / name)
        path.rename(target)
    with tempfile.TemporaryDirectory(prefix=".steps-", dir=folder) as gone:
        steps.rename(Path(gone) / "steps")


def print_paths(folder: Path, store: Path) -> None:
    """Print where the results of a finished run are, and how to see its run in MLflow.

    Args:
        folder: the folder of the run.
        store: the folder of all runs.
    """
    shown = Path(os.path.relpath(folder))
    print()
    print(f"report     {shown / 'report' / 'report.html'}")
    print(f"structure  {shown / 'structures' / 'structure.json'}")
    print(f"model      {shown / 'model-pruned'}")
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        from pfs_core.tracking.answers import plain

        print(f"MLflow     {plain(uri)}")
    else:
        option = "" if store == Path("pfs-runs") else f" --out {store}"
        here = Path(sys.executable).with_name("pfs")
        program = "pfs" if shutil.which("pfs") == str(here) else os.path.relpath(here)
        print(f"MLflow     {program} ui{option}  (then open http://127.0.0.1:5000)")
