"""Writing results so that a reader never sees half of one."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pfs_core.errors import AccessDeniedError, InvalidError, NotFoundError, file_error
from pfs_core.storage.digests import file_digest, json_digest
from pfs_core.storage.local import is_there
from pfs_core.storage.strict import json_value, yaml_value
from pfs_core.storage.whole_file import whole_file

_LONGEST_NAME = 100
COMPLETE = "complete.json"
"""Name of the file written last into every published folder: {file: sha256}."""


@contextlib.contextmanager
def publish(out: str | Path, kind: str) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends without an exception.

    The work happens in a hidden sibling of ``out`` (same file system), which is renamed at the end: a killed step
    leaves ``out`` as it was. An earlier result of the same kind at ``out`` is replaced, by two renames; killed just
    between them, ``out`` is missing and the earlier result is in the hidden sibling ``.NAME.old-*``.

    Args:
        out: the folder to write.
        kind: what it holds; the block writes ``<kind>.json`` into it.

    Raises:
        UserError: as :func:`check_out`.
    """
    check_out(out, kind)
    out = Path(out).resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as e:
        raise file_error(e, f"{out} cannot be made: {e.strerror}; name another folder") from None
    try:
        yield aside
        files = _files(aside)
        for path in files:
            path.chmod(0o644)  # safetensors and temporary folders are private to their user; results are not
        aside.chmod(0o755)
        write_json(aside / COMPLETE, {str(path.relative_to(aside)): file_digest(path) for path in files})
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
            out.rename(old / out.name)
            aside.rename(out)
            shutil.rmtree(old)
        else:
            aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_out(out: str | Path, kind: str) -> None:
    """Raise UserError unless a result of ``kind`` can be published at ``out``; long steps ask before they begin.

    A folder that is not empty must hold an earlier result of that kind and nothing else.

    Raises:
        InvalidError: there is something else at ``out``.
        AccessDeniedError: nothing can be written there.
    """
    check_parents(Path(out))
    try:
        out = Path(out).resolve()
        out.exists()
    except RuntimeError:
        raise InvalidError(f"{out} is a link in a circle; name another folder") from None
    except OSError as e:
        raise file_error(e, f"{out} cannot be made: {e.strerror}; name another folder") from None
    if out.is_dir():
        earlier = {COMPLETE, *_digests(out)} if (out / COMPLETE).is_file() else set()
        found = set()
        for path in (path for path in out.rglob("*") if path.is_file()):  # one is enough in a home of many
            found.add(str(path.relative_to(out)))
            if not found <= earlier:
                break
        if found and (found != earlier or f"{kind}.json" not in found):
            raise InvalidError(f"{out} holds other files than an earlier {kind} result; name a new or empty folder")
    elif out.exists():
        raise InvalidError(f"{out} is a file; name a folder for the output")


def check_parents(out: Path) -> None:
    """Raise InvalidError or AccessDeniedError unless the folders above ``out`` exist or can be made.

    An address is no folder, also where a path has made ``s3:/`` of its ``s3://``.
    """
    if out.parts and out.parts[0].endswith(":"):
        raise InvalidError(f"{out} is an address; name a folder of this machine")
    for parent in out.absolute().parents:
        if is_there(parent):
            if not parent.is_dir():
                raise InvalidError(f"{out} cannot be made: {parent} is a file, not a folder")
            if not os.access(parent, os.W_OK):
                raise AccessDeniedError(f"{out} cannot be made: {parent} is not writable")
            return
        with contextlib.suppress(OSError):  # a name that no file can have is refused when it is made
            if parent.is_symlink():
                raise InvalidError(f"{out} cannot be made: {parent} is a link that leads nowhere")


def check_file(flag: str, path: Path) -> None:
    """Raise UserError unless a file can be written at ``path``; ``flag`` is the option that names it."""
    check_parents(path)
    try:
        if path.is_dir():
            raise InvalidError(f"{flag} {path} is a folder; name the file to write")
        path.resolve(strict=False)
    except RuntimeError:
        raise InvalidError(f"{flag} {path} is a link in a circle; name another file") from None
    except OSError as e:
        raise file_error(e, f"{flag} {path} cannot be written: {e.strerror}; name another file") from None


def make_folder(out: Path, what: str) -> None:
    """Make a folder for files that are written one by one, with those above it, unless it is there.

    Args:
        out: the folder.
        what: what it is for, in a message.

    Raises:
        UserError: it cannot be made or written.
    """
    if is_there(out) and not out.is_dir():
        raise InvalidError(f"{out} is a file; name a folder for {what}")
    check_parents(out / "file")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise file_error(e, f"{out} cannot be made: {e.strerror}; name another folder for {what}") from None


def _digests(folder: Path) -> dict[str, Any]:
    """Return what a published folder says of its files; InvalidError if that is damaged."""
    digests = read_json(folder / COMPLETE)
    if not isinstance(digests, dict):
        raise InvalidError(f"{folder / COMPLETE} is damaged: it must be an object with the files' digests")
    return digests


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def require_result(folder: str | Path, kind: str, made_by: str) -> Path:
    """``folder`` as a Path, if it is a whole result of this program.

    Args:
        folder: what the user named.
        kind: what it should be, e.g. ``"split"``; the folder must hold ``<kind>.json``.
        made_by: the command that makes one, for the error message.

    Raises:
        NotFoundError: the folder is missing, incomplete or of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder; expected the output of `{made_by}`")
    if not (folder / COMPLETE).is_file() or not (folder / f"{kind}.json").is_file():
        raise NotFoundError(f"{folder} is not a complete {kind} folder; make one with `{made_by}`")
    for name in _digests(folder):
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder} has lost its {name}; make it again with `{made_by}`")
    return folder


def plain_name(name: str) -> str:
    """``name`` as a part of file names and of names in the MLflow Model Registry, which take no colon or slash.

    >>> plain_name("torchvision:resnet18")
    'torchvision-resnet18'
    """
    return re.sub(r"[^\w.-]+", "-", name)


def short_name(name: str) -> str:
    """``name`` as the start of names of figures and files in MLflow, which take 250 characters.

    It is a :func:`plain_name` of at most 100 characters; where that changes it, a digest keeps it apart from others.

    >>> short_name("net-1"), short_name("net (v2)-1"), len(short_name(240 * "n"))
    ('net-1', 'net-v2--1-f82658c4', 100)
    """
    short = plain_name(name)[:_LONGEST_NAME]
    return short if short == name else f"{short[: _LONGEST_NAME - 9]}-{json_digest(name, 8)}"


def read_json(path: str | Path) -> Any:
    """Parsed JSON of a file.

    Raises:
        NotFoundError: there is no such file.
        AccessDeniedError: it may not be read.
        InvalidError: it is a folder, or not JSON.
    """
    path = Path(path)
    try:
        return json_value(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InvalidError(f"{path} is a folder; expected a JSON file") from None
    except OSError as e:
        raise file_error(e, f"{path} cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise InvalidError(f"{path} is not JSON: {e}") from None


def read_yaml(path: str | Path) -> Any:
    """Parsed YAML of a file.

    Raises:
        NotFoundError: there is no such file.
        AccessDeniedError: it may not be read.
        InvalidError: it is not YAML.
    """
    path = Path(path)
    try:
        return yaml_value(path.read_bytes())
    except OSError as e:
        raise file_error(e, f"{path} cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise InvalidError(f"{path} is not YAML: {e}") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, aside first and then renamed."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with whole_file(Path(path)) as aside:
        aside.write_text(text, encoding="utf-8")
