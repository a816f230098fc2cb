"""``pfs run``: the whole pipeline on this machine, with steps, progress and the summary on the terminal."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from pfs_core.errors import UserError
from pfs_core.runtime.progress import MARK, MARK_LINES
from pfs_core.storage.artifacts import check_parents, plain_name, read_json, write_json

STORE, CHECKPOINTS = "mlflow.db", "PFS_CHECKPOINTS"


def run_pipeline(arguments: dict[str, Any], store: Path) -> int:
    """Run ``compress`` with ``arguments``; results go to a new folder in ``store``. Returns the exit code.

    The folder gets the results when all steps are done; a run that is killed leaves only its log and ``steps/``.

    Raises:
        UserError: ``store`` is a file.
    """
    folder = new_folder(store, arguments)
    log_path = folder / "run.log"
    request = {
        "arguments": arguments,
        "root": str(folder / "steps"),
        "artifact_root": str(store.absolute() / "artifacts"),
        "log": os.path.relpath(log_path),
    }
    write_json(folder / "run.json", request)
    with log_path.open("w", encoding="utf-8") as log:
        code, error = follow(folder / "run.json", environment(store, folder.name), log)
    if error:
        if not (folder / "steps").exists():  # refused before anything was started
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):
                store.rmdir()
        raise UserError(error)
    if code:
        print(f"pfs: a step failed; the reason is in {log_path}", file=sys.stderr)
        return 1
    collect(folder)
    print_paths(folder, store)
    return 0


def new_folder(store: Path, arguments: dict[str, Any]) -> Path:
    """A new folder in ``store``, named after what runs and when."""
    if store.exists() and not store.is_dir():
        raise UserError(f"--out {store} is a file; name a folder for the runs")
    check_parents(store / "run")
    dataset = Path(arguments["dataset"]).name
    method = arguments["search_settings"].get("method", "pfs")
    parts = [plain_name(arguments["model"]), dataset, arguments["budget"], *([method] * (method != "pfs"))]
    parts.append(f"seed{arguments['seed']}")
    name = re.sub(r"[^\w.-]+", "", "-".join(parts).replace("=", ""))
    for attempt in ("", *(f"-{i}" for i in range(2, 100))):
        folder = (store / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}{attempt}").absolute()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise RuntimeError(f"no free name in {store}")


def environment(store: Path, run_id: str) -> dict[str, str]:
    """The process environment of the run: where MLflow and checkpoints keep what."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri(store)
    ours = {
        "MLFLOW_TRACKING_URI": uri,
        "KFP_RUN_ID": run_id,
        "PYTHONUNBUFFERED": "1",
        MARK_LINES: "1",
    }
    return {CHECKPOINTS: str(store.absolute() / ".checkpoints"), **os.environ, **ours}


def tracking_uri(store: Path) -> str:
    """The MLflow store of a runs folder."""
    return f"sqlite:///{store.absolute() / STORE}"


def follow(request: Path, env: dict[str, str], log: TextIO) -> tuple[int, str]:
    """Run the pipeline's process to its end; all it prints goes to ``log``, marked lines also to the terminal.

    Returns:
        Its exit code, and the line of a user's error if there was one.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    command = [sys.executable, "-m", "pfs_pipelines.local", str(request)]
    error = ""
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                _, mark, text = line.partition(MARK)
                if mark and text.startswith("error: "):
                    error = text.removeprefix("error: ").rstrip()
                elif mark:
                    print(text.rstrip(), flush=True)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    return process.returncode, error


def collect(folder: Path) -> None:
    """Move the results of a finished run out of kfp's folders to ``split/``, ``gates/``, ``model-pruned/`` ..."""
    outputs = read_json(folder / "steps" / "outputs.json")
    for name, path in outputs.items():
        Path(path).rename(folder / name)
    shutil.rmtree(folder / "steps")


def print_paths(folder: Path, store: Path) -> None:
    """Where everything is."""
    shown = Path(os.path.relpath(folder))
    print()
    print(f"report     {shown / 'report' / 'report.html'}")
    print(f"structure  {shown / 'structures' / 'structure.json'}")
    print(f"model      {shown / 'model-pruned'}")
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        from pfs_core.tracking.outbox import plain

        print(f"MLflow     {plain(uri)}")
    else:
        option = "" if store == Path("pfs-runs") else f" --out {store}"
        here = Path(sys.executable).with_name("pfs")
        program = "pfs" if shutil.which("pfs") == str(here) else os.path.relpath(here)
        print(f"MLflow     {program} ui{option}  (then open http://127.0.0.1:5000)")
