"""The files of a storage, as columns: a listing of millions takes no more than their names."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 2**16


class Entry(NamedTuple):
    """A file: its path below the storage's root, bytes, and what changes when its content does.

    ``tag`` is S3's ETag; for a local file its modification time in nanoseconds.
    """

    path: str
    size: int
    tag: str


class Listing(Sequence[Entry]):
    """Files of a storage; an :class:`Entry` is made when one is asked for.

    Args:
        paths: N texts.
        sizes: int64 [N], bytes.
        tags: N texts.
    """

    def __init__(self, paths: pa.StringArray, sizes: np.ndarray, tags: pa.StringArray) -> None:
        self.paths = paths
        self.sizes = sizes
        self.tags = tags

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """The listing of ``entries``, of which one is held at a time."""
        paths, sizes, tags = _Texts(), array("q"), _Texts()
        for entry in entries:
            paths.append(entry.path)
            sizes.append(entry.size)
            tags.append(entry.tag)
        return cls(paths.column(), np.frombuffer(sizes, dtype=np.int64), tags.column())

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, i: SupportsIndex) -> Entry: ...
    @overload
    def __getitem__(self, i: slice) -> "Listing": ...
    def __getitem__(self, i: SupportsIndex | slice) -> "Entry | Listing":
        if isinstance(i, slice):
            return self.take(np.arange(len(self))[i])
        place = range(len(self))[i]
        return Entry(self.paths[place].as_py(), int(self.sizes[place]), self.tags[place].as_py())

    def __iter__(self) -> Iterator[Entry]:
        for some in self.chunks():
            yield from map(Entry, some.paths.to_pylist(), some.sizes.tolist(), some.tags.to_pylist())

    def chunks(self) -> Iterator["Listing"]:
        """The listing in pieces that are small enough for Python's own objects."""
        for start in range(0, len(self), _CHUNK):
            some = slice(start, start + _CHUNK)
            yield Listing(self.paths[some], self.sizes[some], self.tags[some])

    def take(self, rows: np.ndarray) -> "Listing":
        """The files at ``rows``, int [M], in that order."""
        places = pa.array(rows)
        return Listing(self.paths.take(places), self.sizes[rows], self.tags.take(places))

    def filter(self, mask: pa.BooleanArray) -> "Listing":
        """The files where ``mask`` is true, in the order that they have."""
        rows = np.asarray(mask)
        return self if rows.all() else Listing(self.paths.filter(mask), self.sizes[rows], self.tags.filter(mask))

    def named(self, *paths: str) -> "Listing":
        """Those of the files that have one of these paths."""
        return self.filter(pc.is_in(self.paths, value_set=pa.array(paths, pa.string())))

    def matching(self, pattern: str) -> "Listing":
        """Those of the files in whose path the regular expression is found, in RE2's syntax."""
        return self.filter(pc.match_substring_regex(self.paths, pattern))

    def in_path_order(self) -> "Listing":
        """The same files, sorted by their paths' characters."""
        if pc.all(pc.less_equal(self.paths[:-1], self.paths[1:]), min_count=0).as_py():
            return self
        return self.take(pc.sort_indices(self.paths).to_numpy())


class _Texts:
    """Texts that come one by one, in buffers that become an Arrow column as they are."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("i", [0])

    def append(self, text: str) -> None:
        self._data += text.encode()
        self._ends.append(len(self._data))

    def column(self) -> pa.StringArray:
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._data)]
        return pa.Array.from_buffers(pa.string(), len(self._ends) - 1, buffers)
