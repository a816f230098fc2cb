"""The folders of the runs on this machine: which one a run may use, and how far the runs in them are."""

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pfs_core.config.request import DEFAULT_METHOD, CompressRequest
from pfs_core.errors import UserError, file_error
from pfs_core.storage.artifacts import COMPLETE, check_parents, plain_name, read_json
from pfs_core.storage.local import is_there

LOG = "run.log"


@contextlib.contextmanager
def claimed(store: Path, request: CompressRequest, fresh: bool) -> Iterator[tuple[Path, TextIO]]:
    """Yield the folder of a run, which no other run may use meanwhile, and its log.

    The folder is claimed as long as a process has this log open: a process that goes on in the folder must be given it.

    Args:
        store: the folder of all runs.
        request: what the run is asked for.
        fresh: make a new folder, even if the same request was not finished in an earlier one.

    Raises:
        UserError: ``store`` is a file or cannot be written.
    """
    for folder in [] if fresh else unfinished(store, request):
        if (lock := _locked(folder)) is not None:
            print(
                f"going on in {os.path.relpath(folder)}, where this run was stopped (--fresh starts anew)", flush=True
            )
            with lock:
                yield folder, lock
            return
    folder = new_folder(store, request)
    lock = _locked(folder)
    assert lock is not None, "nobody else knows of a new folder"
    with lock:
        yield folder, lock


def run_id(folder: Path) -> str:
    """Return the id of the run in a folder: unlike any other's on an MLflow that several machines or folders share.

    It stays the same when the run goes on, and is not of the form of Kubeflow's ids.
    """
    if (begun := folder / "run.json").exists():
        return str(read_json(begun).get("id", folder.name))  # the name was the id before there were others
    return f"{folder.name}-{secrets.token_hex(4)}"


def _locked(folder: Path) -> TextIO | None:
    """Return the log of a run, which is locked as long as it is open; None if another run has it, or has removed it."""
    try:
        log = (folder / LOG).open("a", encoding="utf-8")
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(log.fileno()).st_nlink:
            return log
    log.close()
    return None


def is_new(folder: Path) -> bool:
    """Return whether there is nothing in a run's folder but what was asked for and its log."""
    return {path.name for path in folder.iterdir()} <= {"run.json", LOG}


def remove_new(folder: Path) -> None:
    """Remove a run's folder in which nothing was begun, and the folder of all runs if it was the only one."""
    if is_new(folder):
        for name in ("run.json", LOG):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def unfinished(store: Path, request: CompressRequest) -> list[Path]:
    """Return the folders in ``store`` in which the same request was begun and not finished, the latest first."""
    arguments, found = request.arguments(), []
    for folder in _runs(store):
        with contextlib.suppress(UserError, FileNotFoundError):  # another one, which was refused, is gone
            begun = read_json(folder / "run.json")
            same = isinstance(begun, dict) and begun.get("arguments") == arguments
            if same and ((folder / "steps").is_dir() or is_new(folder)):
                found.append(folder)
    return found


def states(store: Path) -> list[dict[str, Any]]:
    """Return a row for every run in ``store``, the latest first: its name, state, results and size in MiB.

    The state is ``finished``, ``running`` or ``stopped``; of a run that is not finished, the results are those that it
    would not make again.
    """
    rows = []
    for folder in _runs(store):
        with contextlib.suppress(FileNotFoundError):  # one that is refused is gone
            state = _state(folder)
            sizes = _sizes(folder)
            results = sorted({path.parent.name for path in sizes if path.name == COMPLETE})
            mib = round(sum(sizes.values()) / 2**20, 1)
            rows.append({"name": folder.name, "state": state, "results": results, "mib": mib})
    return rows


def _runs(store: Path) -> list[Path]:
    """Return the folders of the runs in ``store``, the latest first."""
    begun = {}
    for path in store.glob("*/run.json") if is_there(store) else ():
        with contextlib.suppress(FileNotFoundError):
            begun[path.parent] = path.stat().st_mtime
    return sorted(begun, key=lambda folder: -begun[folder])


def _state(folder: Path) -> str:
    if (folder / "report").is_dir() and not (folder / "steps").is_dir():
        return "finished"
    if not (folder / LOG).exists():  # a look makes no file
        return "stopped"
    lock = _locked(folder)
    if lock is None:
        return "running"
    lock.close()
    return "stopped"


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of every file below ``folder``, without those that go while it is looked at."""
    sizes = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
    return sizes


def check_store(store: Path) -> None:
    """Raise UserError if ``store`` is a file or cannot be written."""
    if is_there(store) and not store.is_dir():
        raise UserError(f"--out {store} is a file; name a folder for the runs")
    check_parents(store / "run")


def new_folder(store: Path, request: CompressRequest) -> Path:
    """Make a folder in ``store`` that is named after the request and the time.

    Raises:
        UserError: ``store`` is a file or cannot be written.
    """
    check_store(store)
    parts = [plain_name(request.model), Path(request.dataset).name, *request.budgets]
    if request.method != DEFAULT_METHOD:
        parts.append(request.method)
    parts.append(f"seed{request.seed}")
    name = re.sub(r"[^\w.-]+", "", "-".join(parts).replace("=", ""))
    for attempt in ("", *(f"-{i}" for i in range(2, 100))):
        folder = (store / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}{attempt}").absolute()
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
        except OSError as e:
            raise file_error(e, f"{folder} cannot be made: {e.strerror}; name another folder with --out") from None
    raise RuntimeError(f"no free name in {store}")
