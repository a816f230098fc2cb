"""Folders in a dataset that are no part of it: those that systems make of themselves, and results of this program."""

import os
import re
from pathlib import Path

import pyarrow.compute as pc

from pfs_core.storage import Storage
from pfs_core.storage.artifacts import COMPLETE
from pfs_core.storage.listing import Listing

_BY_NAME = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "pfs-runs")
"""Folders of operating systems and storage devices, and that of runs, which are passed over like hidden ones."""
_RESULTS = tuple(
    f"{kind}.json" for kind in ("split", "search", "structure", "metrics", "latency", "report", "comparison", "profile")
)
"""The files by which results are known; a pack has none of them and is a dataset."""


def dataset_files(storage: Storage) -> Listing:
    """List the files of a dataset, without those in folders that are passed over."""
    files = without_system_folders(storage.files())
    for complete in files.matching(rf"/{re.escape(COMPLETE)}$"):
        folder = complete.path.removesuffix(COMPLETE)
        if files.named(*(f"{folder}{name}" for name in _RESULTS)):
            files = files.filter(pc.invert(pc.starts_with(files.paths, folder)))
    return files


def without_system_folders(files: Listing) -> Listing:
    """Return the files that are in no folder that is passed over by its name."""
    folders = "|".join(re.escape(name) for name in _BY_NAME)
    return files.filter(pc.invert(pc.match_substring_regex(files.paths, f"(^|/)({folders})/")))


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder of this machine, sorted, without those that are passed over."""
    with os.scandir(folder) as entries:
        found = [Path(one.path) for one in entries if one.is_dir() and not one.name.startswith(".")]
    return [one for one in sorted(found) if one.name not in _BY_NAME and not _holds_results_only(one)]


def _holds_results_only(folder: Path) -> bool:
    """Whether a folder is a result, or has nothing but folders of results in it; links are not followed."""
    if (folder / COMPLETE).is_file() and any((folder / name).is_file() for name in _RESULTS):
        return True
    empty = True
    with os.scandir(folder) as entries:
        for one in entries:
            if not one.is_dir(follow_symlinks=False) or not _holds_results_only(Path(one.path)):
                return False
            empty = False
    return not empty
