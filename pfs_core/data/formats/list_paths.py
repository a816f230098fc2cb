"""Which images the texts of a column name.

They are whole paths, somebody else's paths that end like these, names of files, or these without the suffix.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.parts import part_named
from pfs_core.storage.listing import Listing

_NAMES, _STEMS = 12, 13


class Named(NamedTuple):
    """The images that a column names.

    Attributes:
        images: int64 [n], the position of each, or -1.
        level: how they are named; the smaller, the more a text says.
        several: the first row that could be one of several images; None if there is none.
    """

    images: np.ndarray
    level: int
    several: int | None

    @property
    def all_found(self) -> bool:
        """Whether every text names an image."""
        return bool((self.images >= 0).all())

    @property
    def share(self) -> float:
        """The share of the texts that name an image."""
        return float((self.images >= 0).mean())

    @property
    def sure(self) -> bool:
        """Whether a text that names no image must be a mistake: numbers are often no names of images."""
        return self.level < _STEMS


class ImageNames:
    """Images by what a list may call them.

    Args:
        rows: int64, the positions of these images among all.
        paths: their paths below the dataset.
        folder: what the paths of the list are relative to, with a slash at its end; empty for the dataset itself.
    """

    def __init__(self, rows: np.ndarray, paths: pa.Array, folder: str) -> None:
        self.rows, self.paths, self._folder = rows, paths, folder
        below = pc.utf8_slice_codeunits(paths, len(folder)) if folder else paths
        self._exact = _Ways(below)
        self._folded = _Ways(_folded(below))

    @classmethod
    def below(cls, images: Listing, folder: str) -> "ImageNames":
        """Return the images below a folder, which are all that a list in it can call."""
        rows = np.flatnonzero(pc.starts_with(images.paths, folder).to_numpy(zero_copy_only=False))
        return cls(rows, images.paths.take(pa.array(rows)) if folder else images.paths, folder)

    def within(self, part: str) -> "ImageNames":
        """Return those of them that are in a folder named like a part, such as ``training``."""
        folders = pc.replace_substring_regex(self.paths, r"[^/]*$", "").dictionary_encode()
        is_of = [any(part_named(name) == part for name in path.split("/")) for path in folders.dictionary.to_pylist()]
        here = np.flatnonzero(np.array(is_of, dtype=bool)[folders.indices.to_numpy()])
        return ImageNames(self.rows[here], self.paths.take(pa.array(here)), self._folder)

    def find(self, texts: pa.Array) -> Named | None:
        """Find the images that texts name, in the first way in which most of them name one; None if none does."""
        texts = pc.replace_substring_regex(texts, r"\\", "/")
        texts = pc.replace_substring_regex(texts, r"^(\.{0,2}/)+", "")
        best: Named | None = None
        for named in (*self._exact.attempts(texts), *self._folded.attempts(_folded(texts))):
            hits = int((named.images >= 0).sum())
            if hits and (best is None or hits > (best.images >= 0).sum()):
                best = named
        return best


class _Ways:
    """Paths, file names and file names without suffix, exact or folded."""

    def __init__(self, paths: pa.Array) -> None:
        self.paths = _Calls(paths)
        self.names = _Calls(pc.replace_substring_regex(paths, r"^.*/", ""))
        self.stems = _Calls(pc.replace_substring_regex(paths, r"^.*/|\.[^./]*$", ""))

    def attempts(self, texts: pa.Array) -> Iterator[Named]:
        """Yield what is found in each way, the surest first, up to one in which all is found."""
        last = pc.replace_substring_regex(texts, r"^.*/", "")
        ways = [(level, self.paths, rest) for level, rest in enumerate(_shorter(texts))] if self.paths.unique else []
        ways += [(_NAMES, self.names, last), (_STEMS, self.stems, last)]
        for level, calls, wanted in ways:
            named = calls.find(wanted, level)
            yield named
            if named.all_found:
                return


class _Calls:
    """One way to call the images."""

    def __init__(self, names: pa.Array) -> None:
        self._names = names
        counts = names.value_counts()
        self._several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))

    @property
    def unique(self) -> bool:
        """Whether no two images are called the same."""
        return not len(self._several)

    def find(self, wanted: pa.Array, level: int) -> Named:
        """Find the first image that each text calls."""
        found = pc.fill_null(pc.index_in(wanted, value_set=self._names), -1).to_numpy(zero_copy_only=False)
        several = np.flatnonzero(pc.is_in(wanted, value_set=self._several).to_numpy(zero_copy_only=False))
        return Named(found.astype(np.int64), level, int(several[0]) if len(several) else None)


def _shorter(texts: pa.Array) -> Iterator[pa.Array]:
    """Yield paths, then the same without their first folder, without the first two and so on."""
    for _ in range(_NAMES):
        yield texts
        shorter = pc.replace_substring_regex(texts, r"^[^/]*/+", "")
        if shorter.equals(texts):
            return
        texts = shorter


def _folded(texts: pa.Array) -> pa.Array:
    """Return texts as they are compared where capitals and forms of Unicode do not matter."""
    return pc.utf8_lower(pc.utf8_normalize(texts, "NFC"))
