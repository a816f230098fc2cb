"""Images with lists of their paths and labels beside them: CSV, JSON lines, or Parquet files without images.

They are at the root; Hugging Face's ``metadata`` files may be in any folder, and name images below it.

:mod:`~pfs_core.data.formats.list_columns` finds out what a table says of them, and
:mod:`~pfs_core.data.formats.list_choice` which tables are lists of labels.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels, merge_labels
from pfs_core.data.dataset import Source, checked_classes, column_fingerprint, fingerprint
from pfs_core.data.formats.list_choice import Choice, check_repeated, chosen, lists_of, not_used, of_parts
from pfs_core.data.formats.list_columns import Listed, candidate_in
from pfs_core.data.formats.list_paths import ImageNames
from pfs_core.data.formats.list_tables import ListTable, read_list
from pfs_core.data.formats.tree import GROUP, IMAGES
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import given_parts, is_held_out, words_in
from pfs_core.errors import UserError
from pfs_core.storage import Storage
from pfs_core.storage.listing import Listing

METADATA = r"(?i)(^|/)metadata\.(csv|jsonl|parquet)$"
"""Pattern of the paths of Hugging Face's lists, whose paths are relative to their own folder."""
LISTS = rf"(?i)^[^/]*\.(csv|tsv|jsonl|parquet)$|{METADATA}"
"""Pattern of the paths of files that may be lists."""


class Lists(NamedTuple):
    """The tables of a dataset that have no images in them.

    Attributes:
        images: the images of the dataset.
        tables: the tables.
        choice: which of them are lists of the labels of the images.
    """

    images: Listing
    tables: list[ListTable]
    choice: Choice


def is_submission(path: str) -> bool:
    """Whether a file is one that Kaggle wants back, whose labels are made up."""
    return "submission" in words_in(path)


def read_lists(storage: Storage, files: Listing, config: SplitConfig) -> Lists:
    """Read the files that may be lists, and find out which are lists of labels; no image is read.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which columns have the paths and the labels.
    """
    images = files.matching(IMAGES)
    candidates = [entry for entry in files.matching(LISTS) if not is_submission(entry.path)] if images else []
    with ThreadPoolExecutor(8) as pool:
        tables = [table for table in pool.map(lambda entry: read_list(storage, entry), candidates) if table]
    folders = dict.fromkeys(_folder(table.path) for table in tables)
    names = {folder: ImageNames.below(images, folder) for folder in folders}
    read = (candidate_in(storage.uri, table, names[_folder(table.path)], config) for table in tables)
    return Lists(images, tables, chosen([one for one in read if one is not None], len(images)))


def open_lists(storage: Storage, files: Listing, lists: Lists, config: SplitConfig) -> Source:
    """Index the images that lists name; no image is read.

    Args:
        storage: the dataset.
        files: all of its files.
        lists: those of them that may be lists, of which some are to be read.
        config: which columns have the paths and the labels.

    Raises:
        UserError: a list names images that are not there, names one twice, or has no label for it.
    """
    images, choice = lists.images, lists.choice
    every = lists_of(storage.uri, choice.read)
    found = of_parts(every)
    check_repeated(storage.uri, found, guessed=not any(one.named for one in choice.read))
    read = [one.path for one in found]
    dropped = [f"{one.path} says no part, and others do; it is not used" for one in every if one.path not in read]
    rows = np.concatenate([one.images for one in found])
    _check_once(storage.uri, found, images)
    counts = [len(one.images) for one in found]
    places = [f"{one.path}: {part}" if part else one.path for one in found for part in dict.fromkeys(one.parts)]
    said = [part for one in found for part in dict.fromkeys(one.parts)]
    which, first = [], 0
    for one in found:
        own = list(dict.fromkeys(one.parts))
        which += [first + own.index(part) for part in one.parts]
        first += len(own)
    parts = given_parts(storage.uri, places, said, np.array(which))
    classes = merge_labels([labels for one in found for labels in _labels(storage.uri, one)])
    # _labels gives the rows of a list part by part; this brings them back to the order of the rows.
    order = np.concatenate([_by_part(one) + start for one, start in zip(found, np.cumsum([0, *counts]), strict=False)])
    labels = np.empty(len(rows), dtype=np.int64)
    labels[order] = classes.labels
    in_path_order = np.argsort(rows)
    rows = rows[in_path_order]
    named = images.take(rows)
    unlisted = left_out(images, named.paths, f"not in {', '.join(read)}", always=True)
    others = files.filter(pc.invert(pc.is_in(files.paths, value_set=images.paths)))
    note = "; ".join(f"labels are from {one.path} ({one.columns})" for one in found)
    digest = fingerprint(storage, files.named(*read, *named.paths.to_pylist()))
    return Source(
        uri=storage.uri,
        kind="tree",
        files=named,
        file=np.arange(len(rows), dtype=np.int32),
        group=np.arange(len(rows), dtype=np.int32) // GROUP,
        row=np.zeros(len(rows), dtype=np.int64),
        labels=labels[in_path_order],
        is_test=parts.is_test[in_path_order],
        names=named.paths,
        class_names=checked_classes(classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(digest, config),
        is_validation=None if parts.is_validation is None else parts.is_validation[in_path_order],
        notes=(note, *parts.notes, *classes.notes, *dropped, *not_used(choice.others, "it is not used")),
        left_out=unlisted + left_out(others, read),
        lists=tuple(read),
    )


def _folder(path: str) -> str:
    """Return the folder of a list with a slash at its end; empty at the root."""
    return "".join(path.rpartition("/")[:2])


def says_the_same(tree: Source, listed: Source) -> bool:
    """Whether a list gives the images of a tree the classes that their folders are, and the parts.

    It must name all images of the parts that it names any of, and say no other parts.
    """
    position = pc.index_in(listed.files.paths, value_set=tree.files.paths).to_numpy(zero_copy_only=False)
    position = position.astype(np.int64)
    of_tree, of_list = _parts(tree), _parts(listed)
    if not np.isin(np.delete(of_tree, position), of_tree[position], invert=True).all():
        return False
    if of_list.any() and (of_list != of_tree[position]).any():
        return False
    pairs = np.unique(np.stack([tree.labels[position], listed.labels]), axis=1)
    return bool(len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1])


def _parts(source: Source) -> np.ndarray:
    """Return a number for the part of each row."""
    return source.is_test + 2 * (source.is_validation if source.is_validation is not None else 0)


def _check_once(uri: str, found: list[Listed], images: Listing) -> None:
    """Raise UserError if an image is named twice."""
    rows = np.concatenate([one.images for one in found])
    counts = np.bincount(rows)
    if counts.max() < 2:
        return
    row = int(np.argmax(counts > 1))
    texts = {text.as_py() for one in found for text in one.labels.filter(pa.array(one.images == row))}
    raise UserError(
        f"{uri}: {images[row].path} is named {counts[row]} times, as {' and '.join(sorted(map(repr, texts)))}; "
        "an image may have one row"
    )


def _by_part(one: Listed) -> np.ndarray:
    """Return the rows of a list, those that are not held out first."""
    held_out = np.array([is_held_out(part) for part in one.parts])
    return np.concatenate([np.flatnonzero(~held_out), np.flatnonzero(held_out)])


def _labels(uri: str, one: Listed) -> list[Labels]:
    """Return the labels of a list, of the rows to train on and of those that are held out."""
    names = _names_of(one.labels.unique().to_pylist()) if one.names is None else one.names
    codes = pc.index_in(one.labels, value_set=pa.array(list(names), pa.string())).to_numpy().astype(np.int64)
    held_out = np.array([is_held_out(part) for part in one.parts])
    place = f"{uri}/{one.path}"
    both = [out for out in (False, True) if (held_out == out).any()]
    is_text = all(text == name for text, name in names.items())
    return [Labels(place, codes[held_out == out], list(names.values()), out, is_text) for out in both]


def _names_of(texts: Collection[str]) -> dict[str, str]:
    """Return labels as the names of their classes, in order; that of their numbers, if they are numbers."""
    numbers = all(text.isdecimal() for text in texts)
    return {text: text for text in sorted(texts, key=lambda text: (int(text), text) if numbers else (0, text))}
