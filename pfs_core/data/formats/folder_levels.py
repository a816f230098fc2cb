"""At which level of folders the classes are: what could be another level is refused."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.parts import EXPECTED
from pfs_core.errors import UserError
from pfs_core.storage.listing import Listing


@dataclass
class Top:
    """A folder at the top of a tree: the names of the folders below it, and whether it has images of its own."""

    below: set[str]
    images: bool

    @property
    def holds_folders(self) -> bool:
        """Whether all of its images are in folders below it."""
        return bool(self.below) and not self.images


def check_levels(uri: str, images: Listing, tops: Mapping[str, Top]) -> None:
    """Raise UserError if the folders at the top may not be the classes.

    Args:
        uri: the address of the dataset.
        images: its images, all of which are below a folder at the top.
        tops: these folders, none of which is named like a part.
    """
    if not all(top.holds_folders for top in tops.values()):
        return
    if len(tops) == 1:
        raise _single(uri, images)
    again = set.intersection(*(top.below for top in tops.values()))
    if len(again) > 1:
        raise UserError(
            f"dataset {uri} has the same folders ({listed(again)}) in each of {listed(tops)}, so that either could be "
            f"the classes; {EXPECTED}, or a list such as labels.csv (path,label)"
        )


def _single(uri: str, images: Listing) -> UserError:
    """Return the error that all images are in one folder, which names a folder to be named instead."""
    folders = {path.rpartition("/")[0] for path in images.paths.to_pylist()}
    shared = os.path.commonpath(folders)
    inner = shared not in folders
    hint = f"if the folders in it are the classes, name {uri}/{shared}" if inner else "at least 2 are needed"
    return UserError(f"dataset {uri} has a single class, {shared}/; {hint}")


def listed(names: Collection[str]) -> str:
    """Name some folders.

    >>> listed({"b", "a"})
    'a/, b/'
    """
    shown = sorted(names)
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(f"{name}/" for name in shown[:4]) + more


def folders_at(files: Listing, depth: int) -> pa.DictionaryArray:
    """Return the name of the folder at level ``depth`` of each path, counted from 0; null where there is none."""
    pattern = rf"^(?:[^/]*/){{{depth}}}(?P<folder>[^/]*)/"
    names = (pc.struct_field(pc.extract_regex(chunk.paths, pattern), "folder") for chunk in files.chunks())
    return pa.chunked_array([chunk.dictionary_encode() for chunk in names]).unify_dictionaries().combine_chunks()
