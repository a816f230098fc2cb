"""Encoded images of a source, a row group at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError, decode
from pfs_core.data.formats.parquet import encoded_images, open_file_of
from pfs_core.errors import UserError
from pfs_core.storage import open_storage

_THREADS = 8


class Reader:
    """Reads the encoded images of ``source``; several requests at once where every image is a file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.storage = open_storage(source.uri)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._parquet = lru_cache(maxsize=16)(self._open)

    def _open(self, file: int) -> tuple[pq.ParquetFile, np.ndarray]:
        opened = open_file_of(self.storage, self.source.files[file])
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        return opened, np.cumsum([0, *sizes])

    def read(self, rows: np.ndarray) -> list[bytes | None]:
        """The bytes of rows that are all of one row group."""
        files = self.source.files
        if self.source.kind == "tree":
            return list(self._pool.map(lambda i: self.storage.read(files[i]), self.source.file[rows].tolist()))
        file, group = int(self.source.file[rows[0]]), int(self.source.group[rows[0]])
        opened, starts = self._parquet(file)
        images = encoded_images(self.storage, files[file], opened, group)
        return [images[i] for i in (self.source.row[rows] - starts[group]).tolist()]


def row_groups(source: Source, rows: np.ndarray) -> list[np.ndarray]:
    """``rows`` by the row group that they are in, in the order of the source."""
    rows = np.sort(rows)
    file = np.zeros(len(rows), dtype=np.int64) if source.kind == "tree" else source.file[rows].astype(np.int64)
    ids = file << 32 | source.group[rows]
    return np.split(rows, np.flatnonzero(np.diff(ids)) + 1) if len(rows) else []


def decoded(source: Source, channels: int | None = None) -> Iterator[tuple[int, Tensor | BadImageError]]:
    """Every row of a source of encoded images, decoded to uint8 [C, H, W], in order; or why it cannot be."""
    reader = Reader(source)

    def one(item: tuple[int, bytes | None]) -> tuple[int, Tensor | BadImageError]:
        try:
            return item[0], decode(item[1], channels)
        except BadImageError as e:
            return item[0], e

    with ThreadPoolExecutor(_THREADS) as pool:
        for rows in row_groups(source, np.arange(len(source))):
            yield from pool.map(one, zip(rows.tolist(), reader.read(rows), strict=True))


def load_images(source: Source, channels: int | None, skip: bool) -> tuple[Tensor, dict[int, str]]:
    """All images, uint8 [N, C, H, W], and the rows that cannot be used with the reason (their images are black).

    Raises:
        UserError: an image cannot be decoded or differs in size, unless ``skip``; the line names file and row.
    """
    out: Tensor | None = None
    skipped: dict[int, str] = {}
    for i, image in decoded(source, channels):
        if isinstance(image, BadImageError):
            reason = str(image)
        else:
            if out is None:
                out = torch.zeros(len(source), *image.shape, dtype=torch.uint8)
            if image.shape == out.shape[1:]:
                out[i] = image
                continue
            reason = (
                f"the image is {_size(image.shape)}, the first one {_size(out.shape[1:])}; "
                "set split.image_size to train on crops of one size"
            )
        if not skip:
            raise UserError(f"{source.place(i)}: {reason}")
        skipped[i] = reason
    if out is None:
        raise UserError(f"dataset {source.uri} has no image that can be decoded")
    return out, skipped


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
