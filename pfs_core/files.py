"""Writing results so that a reader never sees half of one."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError

COMPLETE = "complete.json"
"""Name of the file written last into every published folder: {file: sha256}."""


@contextlib.contextmanager
def publish(out: str | Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends without an exception.

    The work happens in a hidden sibling of ``out`` (same file system), which is renamed at the end: a killed step
    leaves ``out`` as it was. An earlier result of this program at ``out`` is replaced.

    Raises:
        UserError: ``out`` is a file, or a folder with contents that this program did not write.
    """
    out = Path(out)
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        yield aside
        files = [path for path in sorted(aside.rglob("*")) if path.is_file()]
        for path in files:
            path.chmod(0o644)  # safetensors and temporary folders are private to their user; results are not
        aside.chmod(0o755)
        digests = {str(path.relative_to(aside)): sha256(path) for path in files}
        write_json(aside / COMPLETE, digests)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
            out.rename(old / out.name)
            aside.rename(out)
            shutil.rmtree(old)
        else:
            aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_out(out: str | Path) -> None:
    """Raise UserError unless a result can be published at ``out``."""
    out = Path(out)
    if out.is_dir():
        if any(out.iterdir()) and not (out / COMPLETE).is_file():
            raise UserError(f"{out} holds files that pfs did not write; name a new or empty folder for the output")
    elif out.exists():
        raise UserError(f"{out} is a file; name a folder for the output")
    for parent in out.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise UserError(f"{out} cannot be made: {parent} is a file, not a folder")
            break


def require_result(folder: str | Path, kind: str, made_by: str) -> Path:
    """``folder`` as a Path, if it is a whole result of this program.

    Args:
        folder: what the user named.
        kind: what it should be, e.g. ``"split"``; the folder must hold ``<kind>.json``.
        made_by: the command that makes one, for the error message.

    Raises:
        UserError: the folder is missing, incomplete or of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected the output of `{made_by}`")
    if not (folder / COMPLETE).is_file() or not (folder / f"{kind}.json").is_file():
        raise UserError(f"{folder} is not a complete {kind} folder; make one with `{made_by}`")
    return folder


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_json(path: str | Path) -> Any:
    """Parsed JSON of a file; UserError if it is not there or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a JSON file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise UserError(f"{path} is not JSON: {e}") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, aside first and then renamed."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(path)
