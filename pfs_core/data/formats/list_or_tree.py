"""Files that are images: their classes are in lists, or are the folders that the images are in."""

import re
from collections.abc import Collection
from dataclasses import replace

from pfs_core.config.stages import SplitConfig
from pfs_core.data.dataset import Source
from pfs_core.data.formats.list_choice import not_used
from pfs_core.data.formats.lists import LISTS, METADATA, Lists, is_submission, open_lists, says_the_same
from pfs_core.data.formats.tree import open_tree
from pfs_core.data.parts import parts_in, words_in
from pfs_core.errors import UserError, did_you_mean
from pfs_core.storage import Storage
from pfs_core.storage.listing import Listing

_BELOW = r"(?i)/[^/]*\.(csv|tsv|jsonl)$"
_LIKE_LISTS = r"(?i)^[^/]*\.(json|ndjson|txt|xlsx?|ods|(csv|tsv|jsonl)\.(gz|zip|bz2))$"
"""Pattern of the paths of files that may be lists in forms that are not read."""
_OF_LISTS = ("label", "labels", "list", "annotation", "annotations", "metadata", "class", "classes", "images")
_HEAPS = ("part", "batch", "chunk", "shard", "fold", "images", "image", "imgs", "img")


def open_listed(storage: Storage, files: Listing, lists: Lists, config: SplitConfig) -> Source:
    """Return the rows of the lists; those of the folders where they say the same, since they have better names.

    Raises:
        UserError: a list is refused.
    """
    listed = open_lists(storage, files, lists, config)
    try:
        tree = open_tree(storage, files)
    except UserError:
        return listed
    if not says_the_same(tree, listed):
        return listed
    return replace(tree, notes=(*tree.notes, *not_used(lists.choice.others, "it is not used")))


def open_folders(storage: Storage, files: Listing, lists: Lists, config: SplitConfig) -> Source:
    """Return the images in folders of classes; the rows of lists that are in doubt only where there are none.

    Raises:
        UserError: the images are neither in folders of classes nor in a list, or a setting names a column of no list.
    """
    _check_columns(storage.uri, lists, config)
    choice = lists.choice
    try:
        tree = open_tree(storage, files)
    except UserError as e:
        if choice.read:
            return open_lists(storage, files, lists, config)
        raise UserError(_with_lists(storage.uri, str(e), files, lists)) from None
    if choice.read and _are_heaps(tree.class_names):
        return open_lists(storage, files, lists, config)
    said = (*not_used([*choice.read, *choice.others], "classes are the folders"), *unused_columns(config))
    return replace(tree, notes=(*tree.notes, *said))


def unused_columns(config: SplitConfig) -> list[str]:
    """Say of a dataset without columns which settings name some."""
    settings = {"split.image_column": config.image_column, "split.label_column": config.label_column}
    return [f"{name} is not used: the dataset has no columns" for name, value in settings.items() if value]


def _check_columns(uri: str, lists: Lists, config: SplitConfig) -> None:
    """Raise UserError if there are tables, and a setting names a column that none of them has as it should."""
    columns = {table.path: list(table.columns) for table in lists.tables}
    settings = (("images", config.image_column), ("labels", config.label_column))
    for what, name in settings:
        if not columns or name is None:
            continue
        path = next((path for path, known in columns.items() if name in known), None)
        if path:
            lacks = "labels" if what == "images" else "names of images"
            raise UserError(f"{uri}/{path} has the column {name!r}, but none of {lacks} beside it")
        path = max(columns, key=lambda one: len(did_you_mean(name, columns[one])) > 0)
        known = ", ".join(columns[path])
        raise UserError(f"{uri}: no list has a column {name!r}{did_you_mean(name, columns[path])}; {path} has {known}")


def _are_heaps(names: Collection[str]) -> bool:
    """Whether folders are numbered like downloads in several pieces (``images_001``), which are no classes."""
    words = {tuple(words_in(name)) for name in names}
    counted = all(name[-1:].isdecimal() for name in names)
    return counted and len(words) == 1 and words.pop()[-1:] in [(word,) for word in _HEAPS]


def _with_lists(uri: str, refusal: str, files: Listing, lists: Lists) -> str:
    """Add to why images are in no folders of classes what keeps a file from being the list of them."""
    for entry in files.matching(LISTS):
        if not is_submission(entry.path):
            return f"{refusal}; {entry.path} has no column of their names and one of labels"
    images = lists.images.paths.to_pylist()
    for path in [entry.path for entry in files.matching(_BELOW) if not re.search(METADATA, entry.path)]:
        folder = path.rpartition("/")[0]
        beside = [image for image in images if image.startswith(f"{folder}/")]
        if len(beside) == len(images):
            return f"dataset {uri} has no classes; if {path} is the list of its images, name {uri}/{folder}"
        if beside:
            return (
                f"{refusal}; {path} is not read, as lists are read at the top only, or as metadata.csv in any folder: "
                "give it that name if it is the list of its images"
            )
    for entry in files.matching(_LIKE_LISTS):
        if parts_in(entry.path) or any(word in _OF_LISTS for word in words_in(entry.path)):
            return f"{refusal}; {entry.path} is not read, as lists are read as .csv, .tsv, .jsonl or .parquet"
    return refusal
