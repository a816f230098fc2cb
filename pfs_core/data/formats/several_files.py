"""Datasets of several files that have the labels of their rows in them: read side by side, as one set of rows."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from pfs_core.data.classes import Labels, Merged, merge_labels
from pfs_core.data.left_out import LeftOut, left_out
from pfs_core.data.parts import TRAINING, GivenParts, given_parts, is_held_out, said_by_files
from pfs_core.errors import UserError
from pfs_core.storage.listing import Entry, Listing

_THREADS = 16


class HasLabels(Protocol):
    """What was read of a file."""

    @property
    def labels(self) -> Labels:
        """The labels of its rows."""


F = TypeVar("F", bound=HasLabels)


class SeveralFiles(NamedTuple, Generic[F]):
    """What several files say of their rows.

    Attributes:
        files: those that have rows.
        found: what was read of each.
        counts: the number of rows of each.
        file: int32 [N], the position of the file of each row.
        parts: which rows are given as validation and as test.
        classes: the labels of all rows.
        left_out: the files that have no rows.
    """

    files: Listing
    found: list[F]
    counts: list[int]
    file: np.ndarray
    parts: GivenParts
    classes: Merged
    left_out: tuple[LeftOut, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about parts and classes."""
        return self.parts.notes + self.classes.notes


def read_files(uri: str, files: Listing, read: Callable[[Entry, bool], F | None]) -> SeveralFiles[F]:
    """Read all files, several at a time.

    Args:
        uri: the address of the dataset.
        files: its files; their names say which part they are.
        read: reads a file, given whether it is of a part that is not trained on; returns None if it has no rows.

    Raises:
        UserError: as ``read``; no file of a part has rows; or the names of the files, or the classes of the rows,
            contradict each other.
    """
    paths = files.paths.to_pylist()
    said = said_by_files(uri, paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        all_found = list(pool.map(read, files, map(is_held_out, said)))
    has_rows = [one is not None for one in all_found]
    there = {part or TRAINING for part in itertools.compress(said, has_rows)}
    for path, part, has in zip(paths, said, has_rows, strict=True):
        if not has and (part or TRAINING) not in there:
            raise UserError(f"{uri}/{path} holds no rows, and neither does another {part or TRAINING} file; fill it")
    kept = files.filter(pa.array(has_rows))
    paths, said = kept.paths.to_pylist(), list(itertools.compress(said, has_rows))
    found = [one for one in all_found if one is not None]
    counts = [len(one.labels.codes) for one in found]
    file = np.repeat(np.arange(len(found), dtype=np.int32), counts)
    parts = given_parts(uri, paths, said, file)
    empty = left_out(files, paths, "has no rows", always=True)
    return SeveralFiles(kept, found, counts, file, parts, merge_labels([one.labels for one in found]), empty)
