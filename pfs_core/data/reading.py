"""Reading the encoded images of a dataset, one row group at a time."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError, Picture
from pfs_core.data.formats.arrow import ArrowFile
from pfs_core.data.formats.parquet import encoded_images, open_file_of
from pfs_core.data.leaks import comes_in_parts, digest, in_two_parts
from pfs_core.errors import UserError
from pfs_core.runtime.device import core_count, memory_size
from pfs_core.runtime.progress import ImageProgress
from pfs_core.storage import open_storage
from pfs_core.storage.listing import Entry

T = TypeVar("T")

FILES = 64
"""Where every image is a file, so many are read together."""
_THREADS = 8
_AT_ONCE = 16
"""Images that a thread takes at once: taken one by one, small ones would cost more to hand over than to decode."""


class Reader:
    """Reads the encoded images of a dataset.

    Where every image is a file, several are read at once. Of Parquet files, the most recent ones stay open, and of row
    groups the last one stays in memory, since several parts of it may be wanted.

    Args:
        source: the dataset.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.storage = open_storage(source.uri)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._parquet = lru_cache(maxsize=16)(self._open)
        self._arrow = lru_cache(maxsize=16)(lambda file: ArrowFile(self.storage, source.files[file]))
        self._row_group = lru_cache(maxsize=1)(self._read_row_group)
        self._record_batch = lru_cache(maxsize=1)(self._read_record_batch)

    def _open(self, file: int) -> tuple[pq.ParquetFile, np.ndarray]:
        """Open a file, and find the first row of each of its row groups."""
        opened = open_file_of(self.storage, self.source.files[file])
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        return opened, np.cumsum([0, *sizes])

    def read(self, rows: np.ndarray) -> list[bytes | None]:
        """Return the bytes of the images of some rows, which are files, or else all in one row group.

        Raises:
            UserError: a file cannot be read, or has changed since it was listed.
        """
        files, kind = self.source.files, self.source.kind
        if kind == "tree":
            return list(self._pool.map(lambda i: self.storage.read(files[i]), self.source.file[rows].tolist()))
        file = int(self.source.file[rows[0]])
        if kind == "tar":
            return self._from_tar(files[file], rows)
        if kind == "arrow":
            return self._from_arrow(file, rows)
        start, images = self._row_group(file, int(self.source.group[rows[0]]))
        return [images[i] for i in (self.source.row[rows] - start).tolist()]

    def _read_row_group(self, file: int, group: int) -> tuple[int, list[bytes | None]]:
        """Return the first row of a row group, and its images."""
        opened, starts = self._parquet(file)
        entry = self.source.files[file]
        return int(starts[group]), encoded_images(self.storage, entry, opened, group, self.source.image_column)

    def _from_tar(self, entry: Entry, rows: np.ndarray) -> list[bytes | None]:
        """Read the images and what is between them at once."""
        assert self.source.offset is not None
        assert self.source.size is not None
        starts, ends = self.source.offset[rows], self.source.offset[rows] + self.source.size[rows]
        first = int(starts.min())
        data = self.storage.read(entry, first, int(ends.max()) - first)
        return [data[start:end] for start, end in zip((starts - first).tolist(), (ends - first).tolist(), strict=True)]

    def _from_arrow(self, file: int, rows: np.ndarray) -> list[bytes | None]:
        assert self.source.offset is not None
        assert self.source.size is not None
        group, offset, size = (int(of[rows[0]]) for of in (self.source.group, self.source.offset, self.source.size))
        images = self._record_batch(file, group, offset, size)
        return [images[i] for i in self.source.row[rows].tolist()]

    def _read_record_batch(self, file: int, group: int, offset: int, size: int) -> list[bytes | None]:
        return self._arrow(file).images(group, offset, size, self.source.image_column)


def row_groups(source: Source, rows: np.ndarray) -> list[np.ndarray]:
    """Sort ``rows``, and split them by the row group that they are in."""
    rows = np.sort(rows)
    # In a tree every row has a file of its own, and the number of its group is already unique.
    file = np.zeros(len(rows), dtype=np.int64) if source.kind == "tree" else source.file[rows].astype(np.int64)
    ids = file << 32 | source.group[rows]
    return np.split(rows, np.flatnonzero(np.diff(ids)) + 1) if len(rows) else []


def read_together(source: Source, rows: np.ndarray) -> list[np.ndarray]:
    """Sort ``rows``, and split them into those that :meth:`Reader.read` should read in one call."""
    if source.kind != "tree":
        return row_groups(source, rows)
    return np.split(np.sort(rows), range(FILES, len(rows), FILES)) if len(rows) else []


class Readings(NamedTuple):
    """What the images of a dataset are, once all of them have been decoded.

    Attributes:
        images: uint8 [N, C, H, W], where skipped ones are black; None if they are not kept.
        skipped: the reason for each row whose image cannot be used.
        remarks: the number of images with each of :data:`pfs_core.data.decode.REMARKS`.
        pixels: the number of pixels of all images that can be used; 0 where they were not counted.
        in_two_parts: as :func:`pfs_core.data.leaks.in_two_parts` returns it.
    """

    images: Tensor | None
    skipped: dict[int, str]
    remarks: Counter[str]
    pixels: int = 0
    in_two_parts: tuple[int, ...] = ()


def each_image(source: Source, make: Callable[[bytes | None], T], name: str) -> Iterator[tuple[int, T | BadImageError]]:
    """Make something of every image of a dataset of encoded images, in several threads and with progress.

    Args:
        source: the dataset.
        make: is called with the bytes of an image; it may raise BadImageError.
        name: what is done, for the progress.

    Yields:
        The row, in the order of the rows, with what was made of it or the reason why it cannot be used.
    """

    def made(data: bytes | None) -> T | BadImageError:
        try:
            return make(data)
        except BadImageError as e:
            return e

    reader, groups = Reader(source), read_together(source, np.arange(len(source)))
    progress = ImageProgress(name, len(source))
    threads = max(_THREADS, min(32, core_count()))
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(threads) as pool:
        reading = [ahead.submit(reader.read, rows) for rows in groups[:1]]
        for i, rows in enumerate(groups):
            data = reading.pop().result()
            reading += [ahead.submit(reader.read, following) for following in groups[i + 1 : i + 2]]
            some = (data[start : start + _AT_ONCE] for start in range(0, len(data), _AT_ONCE))
            found = pool.map(lambda part: [made(each) for each in part], some)
            yield from zip(rows.tolist(), itertools.chain.from_iterable(found), strict=True)
            progress(len(rows))


def load_images(
    source: Source,
    channels: int | None,
    skip: bool,
    background: str = "white",
    shape: Sequence[int] | None = None,
) -> Readings:
    """Decode all images of a dataset whose images have one size.

    Args:
        source: the dataset, of encoded images.
        channels: as for :meth:`pfs_core.data.decode.Picture.pixels`.
        skip: whether to skip images that cannot be used, instead of stopping at the first one.
        background: the colour behind transparent pixels.
        shape: the shape of the images that are kept, where that is known; else the most frequent one, which is
            that of all unless ``skip`` is set.

    Raises:
        UserError: an image cannot be decoded or differs in size, and ``skip`` is not set; no image can be decoded; or
            all together would take too much memory. The message names file and row.
    """

    def decoded(data: bytes | None) -> tuple[Tensor, set[str], int]:
        picture = Picture(data, background)
        return picture.pixels(channels), picture.remarks, digest(data or b"") if in_parts else 0

    in_parts, digests = comes_in_parts(source), np.zeros(len(source), np.uint64)
    out: Tensor | None = None
    readings, shapes = Readings(None, {}, Counter()), Counter[Sequence[int]]()
    for i, found in each_image(source, decoded, "split reading"):
        if isinstance(found, BadImageError):
            _skip(source, i, str(found), skip, readings)
            continue
        image, remarks, digests[i] = found
        shapes[image.shape] += 1
        if out is None:
            shape = tuple(shape or image.shape)
            check_memory(source, math.prod(shape), skip)
            out = torch.zeros(len(source), *shape, dtype=torch.uint8)
        if image.shape != out.shape[1:]:
            _skip(source, i, difference(image.shape, out.shape[1:], skip), skip, readings)
            digests[i] = 0
            continue
        out[i] = image
        readings.remarks.update(remarks)
    if out is None:
        raise UserError(f"dataset {source.uri} has no image that can be decoded")
    if (usual := most_frequent(shapes)) != out.shape[1:]:
        del out  # there is memory for one of them
        return load_images(source, channels, skip, background, usual)
    return readings._replace(images=out, in_two_parts=in_two_parts(source, digests))


def check_memory(source: Source, size: int, skip: bool = False) -> None:
    """Raise UserError unless the images, of ``size`` bytes each, leave as much memory for everything else.

    Where some may be left out, the others are copied too.
    """
    needed, there = len(source) * size, memory_size(torch.device("cpu"))
    if needed * (3 if skip else 2) > there:
        raise UserError(
            f"dataset {source.uri} takes {needed / 2**30:,.1f} GiB decoded, too much to keep in {there / 2**30:,.1f} "
            "GiB of memory; set split.image_size (224 for ImageNet) to read images from where they are"
        )


def check_images(source: Source, skip: bool) -> Readings:
    """Decode all images of a dataset, of any size, and keep none.

    JPEGs are decoded at an eighth of their size, for which all of their bytes are read as well.

    Args:
        source: the dataset, of encoded images.
        skip: whether to go on after an image that cannot be used, instead of stopping at the first one.

    Raises:
        UserError: an image cannot be decoded, and ``skip`` is not set. The message names file and row.
    """

    def decoded(data: bytes | None) -> tuple[set[str], int, int]:
        picture = Picture(data)
        width, height = picture.size
        picture.draft(1, 1)
        picture.pixels()
        return picture.remarks, width * height, digest(data or b"") if in_parts else 0

    in_parts, digests = comes_in_parts(source), np.zeros(len(source), np.uint64)
    readings, pixels = Readings(None, {}, Counter()), 0
    for i, found in each_image(source, decoded, "split reading"):
        if isinstance(found, BadImageError):
            _skip(source, i, str(found), skip, readings)
        else:
            remarks, size, digests[i] = found
            readings.remarks.update(remarks)
            pixels += size
    return readings._replace(pixels=pixels, in_two_parts=in_two_parts(source, digests))


def bad_image(source: Source, row: int, reason: str) -> UserError:
    """Return the error that an image cannot be used."""
    hint = "" if "set split." in reason else "; split.on_bad=skip leaves such images out"
    return UserError(f"{source.place(row)}: {reason}{hint}")


def _skip(source: Source, row: int, reason: str, skip: bool, readings: Readings) -> None:
    """Note that an image cannot be used, or raise UserError if none may be left out."""
    if not skip:
        raise bad_image(source, row, reason)
    readings.skipped[row] = reason


def most_frequent(shapes: Iterable[Sequence[int]]) -> Sequence[int]:
    """Return the shape that most images have, of several the one that comes first.

    >>> most_frequent([(3, 8, 9), (3, 8, 8), (3, 8, 8)])
    (3, 8, 8)
    """
    ((shape, _),) = Counter(shapes).most_common(1)
    return shape


def difference(shape: Sequence[int], other: Sequence[int], most: bool) -> str:
    """Say how the shape [C, H, W] of an image differs from that of most others or the first one, and what helps."""
    others = "most are" if most else "the first one"
    colour = {1: "grey", 3: "RGB"}
    if shape[1:] == other[1:]:
        return (
            f"the image is {colour[shape[0]]}, {others} {colour[other[0]]}; "
            "set split.channels=3 (or 1 for grey) to read all alike"
        )
    also = " and split.channels=3" if shape[0] != other[0] else ""
    return f"the image is {_size(shape)}, {others} {_size(other)}; set split.image_size{also} to resize all to one size"


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
