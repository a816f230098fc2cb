"""What is made once on a machine, measurements and proofs: JSON files in ``$PFS_CACHE`` (default ``~/.cache/pfs``)."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pfs_core.config.spec import Config
from pfs_core.errors import UserError
from pfs_core.runtime.environment import cache_folder
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.storage.digests import json_digest
from pfs_core.storage.local import is_there

C = TypeVar("C", bound=Config)
_VERSION = 4
"""Part of every name; raise it when earlier files can no longer be used."""


def cache_file(kind: str, *key: Any) -> Path:
    """Return the file of something that is made once; its name is a digest of everything that it depends on.

    Args:
        kind: what is made; it begins the name.
        key: what it depends on, as JSON values.
    """
    return cache_folder("PFS_CACHE") / f"{kind}-{json_digest([_VERSION, *key], 16)}.json"


def made_once(path: Path | None, kind: type[C], make: Callable[[], C]) -> C:
    """Return what is in a file; where there is none it is made, and kept there for the next time.

    A file that is damaged is made again; where it cannot be written, it is made again the next time.

    Args:
        path: the file; None where it is not known what all it would depend on, so that it is made every time.
        kind: the class of it.
        make: makes it.
    """
    if path is None:
        return make()
    if is_there(path):
        with contextlib.suppress(UserError):
            return kind.parse(read_json(path), str(path))
    made = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, made.model_dump(mode="json", by_alias=True))
    return made
