"""At which level of folders the classes are: what could be another level is refused."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

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
        shared = os.path.commonpath([os.path.dirname(path) for path in images.paths.to_pylist()])  # noqa: PTH120
        below = {path[len(shared) :].strip("/").partition("/")[0] for path in images.paths.to_pylist()}
        hint = f"; if the folders in it are the classes, name {uri}/{shared}" if len(below) > 1 else ""
        raise UserError(f"dataset {uri} has a single class, {shared}/{hint or '; at least 2 are needed'}")
    again = set.intersection(*(top.below for top in tops.values()))
    if len(again) > 1:
        raise UserError(
            f"dataset {uri} has the same folders ({listed(again)}) in each of {listed(tops)}, so that either could be "
            f"the classes; {EXPECTED}, or a list such as labels.csv (path,label)"
        )


def listed(names: Collection[str]) -> str:
    """Name some folders.

    >>> listed({"b", "a"})
    'a/, b/'
    """
    shown = sorted(names)
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(f"{name}/" for name in shown[:4]) + more
