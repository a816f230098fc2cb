"""Whether each class folder has images that are read, in one place: a class would be missing, or there twice."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.formats.folder_levels import folders_at
from pfs_core.data.left_out import UNREAD
from pfs_core.data.passed_over import folders_in
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.listing import Listing


def check_class_folders(storage: Storage, files: Listing, said: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise UserError if there is a single class, a folder without images among those of the classes, or one twice.

    A class without images would silently shift all labels after it, and a link to another folder would put images into
    two parts or classes. S3 has neither empty folders nor links.

    Args:
        storage: the root of the tree.
        files: all files below it.
        said: the part that each folder at the top stands for; empty if these are the classes.
        names: the folders of the classes, which have training images.
    """
    bare = _without_images(storage, files, said, names)
    folder = min(bare, default="")
    such = f", but files such as {bare[folder]}" if folder and bare[folder] else ""
    if len(names) == 1:
        beside = f" ({folder}/ holds no images{such})" if folder else ""
        raise UserError(
            f"dataset {storage.uri} has a single class, {names[0]}/{beside}; expected CLASS/image.jpg of at least 2 "
            "classes, or a list such as labels.csv (path,label)"
        )
    if folder:
        right = "move it out of the dataset if it is no class" if such else "remove it or fill it"
        raise UserError(f"class folder {storage.uri}/{folder} holds no training images{such}; {right}")
    if isinstance(storage, LocalStorage):
        _check_links(storage, said)


def check_read(uri: str, files: Listing, names: Sequence[str], depth: int) -> None:
    """Raise UserError if a folder has nothing but images that are not read.

    Args:
        uri: the address of the dataset.
        files: all of its files.
        names: the folders of the classes, which have training images.
        depth: the level that they are at.
    """
    unread = files.matching(UNREAD)
    if not unread:
        return
    folders = folders_at(unread, depth)
    missing = sorted(set(folders.drop_null().unique().to_pylist()) - set(names))
    if missing:
        count = pc.sum(pc.equal(folders, missing[0])).as_py()
        raise UserError(
            f"dataset {uri}: class folder {missing[0]!r} has no image that is read, but {count:,} of other formats; "
            "convert them to PNG or JPEG"
        )


def _without_images(storage: Storage, files: Listing, said: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the folders among those of the classes that have no training images, each with a file in it if any."""
    depth = 2 if said else 1
    folder = folders_at(files, depth - 1).cast(pa.string())
    others = files.paths.filter(pc.invert(pc.is_in(folder, value_set=pa.array(names, pa.string()))))
    bare: dict[str, str] = {}
    for path in others.to_pylist():
        *above, name = path.split("/")
        if len(above) >= depth and (not said or above[0] in said):
            bare.setdefault("/".join(above[:depth]), name)
    for local in _local_folders(storage, said):
        if local.name not in names:
            bare.setdefault(local.relative_to(storage.uri).as_posix(), "")
    return bare


def _local_folders(storage: Storage, said: Mapping[str, str]) -> list[Path]:
    """Return the folders of a local dataset at the level of the classes, also empty ones."""
    if not isinstance(storage, LocalStorage):
        return []
    return [folder for top in sorted(said or {"": ""}) for folder in folders_in(storage.root / top)]


def _check_links(storage: LocalStorage, said: Mapping[str, str]) -> None:
    """Raise UserError if a class folder is a link to another one."""
    real: dict[str, Path] = {}
    for folder in _local_folders(storage, said):
        other = real.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            raise UserError(f"{folder} and {other} are one folder by a link, so its images would be there twice")
