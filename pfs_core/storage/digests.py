"""SHA-256 digests of files and of JSON values, which name checkpoints, caches and jobs."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfs_core.errors import file_error


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits.

    Raises:
        NotFoundError: the file is missing.
        AccessDeniedError: it may not be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise file_error(e, f"{path} cannot be read: {e.strerror}") from None


def json_digest(value: Any, length: int, default: Callable[[Any], Any] | None = None) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of a value written as JSON.

    Equal values have equal digests: the keys of objects are sorted, and a tuple is written as a list is.

    Args:
        value: anything that JSON can hold.
        length: number of hex digits, up to 64.
        default: turns what JSON cannot hold into what it can, as in :func:`json.dumps`.

    Raises:
        TypeError: JSON cannot hold the value, and there is no ``default``.

    >>> json_digest({"b": 1, "a": (2, 3)}, 8) == json_digest({"a": [2, 3], "b": 1}, 8)
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=default).encode()).hexdigest()[:length]
