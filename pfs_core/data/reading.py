"""Reading the encoded images of a dataset, one row group at a time."""

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
    """Reads the encoded images of a dataset.

    Where every image is a file, several are read at once. Of Parquet files, the most recent ones stay open.

    Args:
        source: the dataset.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.storage = open_storage(source.uri)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._parquet = lru_cache(maxsize=16)(self._open)

    def _open(self, file: int) -> tuple[pq.ParquetFile, np.ndarray]:
        """Open a file, and find the first row of each of its row groups."""
        opened = open_file_of(self.storage, self.source.files[file])
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        return opened, np.cumsum([0, *sizes])

    def read(self, rows: np.ndarray) -> list[bytes | None]:
        """Return the bytes of the images of some rows, which must all be in one row group.

        Raises:
            UserError: a file cannot be read, or has changed since it was listed.
        """
        files = self.source.files
        if self.source.kind == "tree":
            return list(self._pool.map(lambda i: self.storage.read(files[i]), self.source.file[rows].tolist()))
        file, group = int(self.source.file[rows[0]]), int(self.source.group[rows[0]])
        opened, starts = self._parquet(file)
        images = encoded_images(self.storage, files[file], opened, group, self.source.image_column)
        return [images[i] for i in (self.source.row[rows] - starts[group]).tolist()]


def row_groups(source: Source, rows: np.ndarray) -> list[np.ndarray]:
    """Sort ``rows``, and split them by the row group that they are in."""
    rows = np.sort(rows)
    # In a tree every row has a file of its own, and the number of its group is already unique.
    file = np.zeros(len(rows), dtype=np.int64) if source.kind == "tree" else source.file[rows].astype(np.int64)
    ids = file << 32 | source.group[rows]
    return np.split(rows, np.flatnonzero(np.diff(ids)) + 1) if len(rows) else []


def decoded(source: Source, channels: int | None = None) -> Iterator[tuple[int, Tensor | BadImageError]]:
    """Decode every image of a dataset of encoded images, in the order of the rows.

    Args:
        source: the dataset.
        channels: as for :func:`pfs_core.data.decode.load`.

    Yields:
        The row, and its image as uint8 [C, H, W] or the reason why it cannot be decoded.
    """
    reader = Reader(source)

    def decoded_row(row: int, data: bytes | None) -> tuple[int, Tensor | BadImageError]:
        try:
            return row, decode(data, channels)
        except BadImageError as e:
            return row, e

    with ThreadPoolExecutor(_THREADS) as pool:
        for rows in row_groups(source, np.arange(len(source))):
            yield from pool.map(decoded_row, rows.tolist(), reader.read(rows))


def load_images(source: Source, channels: int | None, skip: bool) -> tuple[Tensor, dict[int, str]]:
    """Decode all images of a dataset whose images have one size.

    Args:
        source: the dataset, of encoded images.
        channels: as for :func:`pfs_core.data.decode.load`.
        skip: whether to skip images that cannot be used, instead of stopping at the first one.

    Returns:
        The images, uint8 [N, C, H, W], where skipped ones are black; and the reason for each skipped row.

    Raises:
        UserError: an image cannot be decoded or differs in size, and ``skip`` is not set; or no image can be decoded.
            The message names file and row.
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
