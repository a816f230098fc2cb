"""The files that the launcher and the nodes of a TrainJob exchange: folders below one shared address."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfs_core.errors import NotFoundError
from pfs_core.storage import Storage, open_storage
from pfs_core.storage.artifacts import COMPLETE, publish
from pfs_core.storage.whole_file import whole_file
from pfs_core.structure.inherited_weights import FILE as INHERITED

JOB = "job.json"


def put_folder(storage: Storage, name: str, folder: Path) -> None:
    """Copy every file of a published folder to ``name/``, ``complete.json`` last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == COMPLETE):
        storage.write(f"{name}/{path.relative_to(folder)}", path)


def get_folder(address: str, out: Path, kind: str) -> None:
    """Publish as ``out`` what :func:`put_folder` has written to an address; NotFoundError if it is not there."""
    storage = open_storage(address)
    with publish(out, kind) as folder:
        for entry in storage.files():
            if entry.path != COMPLETE:
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(storage.read(entry))


def has_folder(address: str) -> bool:
    """Return whether what :func:`put_folder` has written to an address is there, as a whole."""
    with contextlib.suppress(NotFoundError):
        return any(entry.path == COMPLETE for entry in open_storage(address).files())
    return False


def put_job(
    storage: Storage, structure: Path, split: Path, settings: Mapping[str, Any], initial: Path | None = None
) -> None:
    """Write the inputs of a retraining. ``job.json``, the settings, comes last: where it exists, all inputs do."""
    with contextlib.suppress(NotFoundError):  # nothing is there yet
        if any(entry.path == JOB for entry in storage.files()):
            return
    storage.write("structure.json", structure)
    if initial:
        storage.write(INHERITED, initial)
    put_folder(storage, "split", split)
    storage.write(JOB, json.dumps(dict(settings)).encode())


def get_file(address: str, name: str, folder: Path) -> None:
    """Copy a file below an address into a folder, if it exists; only a whole file appears in the folder."""
    storage = open_storage(address)
    for entry in storage.files():
        if entry.path == name:
            with whole_file(folder / name) as aside:
                aside.write_bytes(storage.read(entry))
