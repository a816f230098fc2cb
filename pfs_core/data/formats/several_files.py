"""Datasets of several files that have the labels of their rows in them: read side by side, as one set of rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from pfs_core.data.classes import Labels, Merged, merge_labels
from pfs_core.data.parts import GivenParts, given_parts, is_held_out, said_by_files
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
        found: what was read of each.
        counts: the number of rows of each.
        file: int32 [N], the position of the file of each row.
        parts: which rows are given as validation and as test.
        classes: the labels of all rows.
    """

    found: list[F]
    counts: list[int]
    file: np.ndarray
    parts: GivenParts
    classes: Merged

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about parts and classes."""
        return self.parts.notes + self.classes.notes


def read_files(uri: str, files: Listing, read: Callable[[Entry, bool], F]) -> SeveralFiles[F]:
    """Read all files, several at a time.

    Args:
        uri: the address of the dataset.
        files: its files; their names say which part they are.
        read: reads a file, given whether it is of a part that is not trained on.

    Raises:
        UserError: as ``read``; or the names of the files, or the classes of the rows, contradict each other.
    """
    paths = files.paths.to_pylist()
    said = said_by_files(uri, paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(read, files, map(is_held_out, said)))
    counts = [len(one.labels.codes) for one in found]
    file = np.repeat(np.arange(len(found), dtype=np.int32), counts)
    parts = given_parts(uri, paths, said, file)
    return SeveralFiles(found, counts, file, parts, merge_labels([one.labels for one in found]))
