"""Measurements of this machine that are made once: JSON files in ``$PFS_CACHE`` (default ``~/.cache/pfs``)."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfs_core.runtime.environment import cache_folder
from pfs_core.storage.artifacts import write_json
from pfs_core.storage.digests import json_digest

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


def keep(path: Path, values: Mapping[str, Any]) -> None:
    """Write a measurement; where that is not possible the next run measures again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, values)
