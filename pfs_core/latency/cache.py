"""Measurements of this machine that are made once: JSON files in ``$PFS_CACHE`` (default ``~/.cache/pfs``)."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pfs_core.config.spec import Config
from pfs_core.runtime.environment import cache_folder
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.storage.digests import json_digest

C = TypeVar("C", bound=Config)
_VERSION = 1
"""Part of every name; raise it when earlier measurements can no longer be used."""


def cached(kind: str, here: Mapping[str, Any], *key: Any) -> Path:
    """Return the file of a measurement; its name is a digest of everything that the measurement depends on.

    Args:
        kind: what was measured; it begins the name.
        here: the machine, from :func:`pfs_core.latency.machine.machine`.
        key: what else the measurement depends on, as JSON values.
    """
    return cache_folder("PFS_CACHE") / f"{kind}-{json_digest([_VERSION, here, *key], 16)}.json"


def measured_once(path: Path, kind: type[C], measure: Callable[[], C]) -> C:
    """Return the measurement in a file; where there is none it is made, and kept there for the next time.

    Where the file cannot be written the next run measures again.

    Raises:
        UserError: the file is not a measurement of this kind.
    """
    if path.exists():
        return kind.parse(read_json(path), str(path))
    found = measure()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump(mode="json", by_alias=True))
    return found
