"""A labelled set of images as an index: its rows, and where the bytes of each are."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import check_told_apart
from pfs_core.data.left_out import LeftOut
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.digests import file_digest
from pfs_core.storage.listing import Listing

_HASHED_BYTES = 2 * 2**30
"""Size up to which the fingerprint of a local dataset is of the content of its files."""


@dataclass(frozen=True)
class Source:
    """The rows of a dataset, one per image. Except for ``arrays``, the images themselves stay in the files.

    Attributes:
        uri: the address of the dataset, or ``torchvision:NAME`` of a downloaded one.
        kind: ``parquet``, ``tree`` (one file per image), ``tar``, ``arrow`` or ``arrays`` (small sets, whose pixels are
            read at once).
        files: the files that hold rows.
        file: int32 [N], the position in ``files`` of the file of each row.
        group: int32 [N], the row group of each row in its file; of ``arrow`` the record batch.
        row: int64 [N], the number of each row in its file; of ``arrow`` in its record batch.
        labels: int64 [N], the position in ``class_names`` of the class of each row.
        is_test: bool [N], whether the dataset itself assigns the row to its test set.
        is_validation: the same for its validation set; None if it has none.
        names: N texts, the name of each row, which stays the same when a dataset is packed; None if rows have no names.
        class_names: the names of the classes; a class may have no rows.
        flip: whether a mirrored image still belongs to its class.
        fingerprint: hex SHA-256 of the content of the dataset, or of what stands for it (see :func:`fingerprint`).
        images: uint8 [N, C, H, W] if ``kind`` is ``arrays``, else None.
        notes: sentences that say how the dataset was understood.
        left_out: the files that are no part of the dataset.
        image_column: the name of the column of images if ``kind`` is ``parquet`` or ``arrow``.
        offset: int64 [N], where the bytes of each image begin in its file if ``kind`` is ``tar``, and those of its
            record batch if it is ``arrow``.
        size: int64 [N], how many bytes these are; 0 of an Arrow file with an index.
        lists: the paths of the files that name the images, if they are listed.
    """

    uri: str
    kind: str
    files: Listing
    file: np.ndarray
    group: np.ndarray
    row: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    names: pa.Array | None
    class_names: list[str]
    flip: bool
    fingerprint: str
    images: Tensor | None = None
    is_validation: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    image_column: str = "image"
    offset: np.ndarray | None = None
    size: np.ndarray | None = None
    lists: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, i: int) -> str:
        """Return where row ``i`` is, for a message."""
        name = f"{self.uri}/{self.files[self.file[i]].path}" if self.kind != "arrays" else self.uri
        batch = f", record batch {self.group[i]}" if self.kind == "arrow" else ""
        return name if self.kind == "tree" else f"{name}{batch}, row {self.row[i]}"


def fingerprint(storage: Storage, files: Listing) -> str:
    """Return a digest of the content of files, as hex.

    It is the SHA-256 of one line ``PATH SIZE DIGEST`` per file, in the order of the paths. The digest of a file is its
    ETag on S3 and its SHA-256 on disk. For local sets of more than 2 GiB it is left out, since all their bytes would
    have to be read.
    """
    small = files.sizes.sum() <= _HASHED_BYTES
    digest = hashlib.sha256()
    for chunk in files.in_path_order().chunks():
        digests = chunk.tags
        if isinstance(storage, LocalStorage):
            digests = pa.array([file_digest(storage.root / path) if small else "" for path in chunk.paths.to_pylist()])
        ends = pc.binary_join_element_wise(digests, "", "\n")
        lines = pc.binary_join_element_wise(chunk.paths, pa.array(chunk.sizes).cast(pa.string()), ends, " ")
        digest.update(lines.buffers()[2])
    return digest.hexdigest()


def column_fingerprint(digest: str, config: SplitConfig) -> str:
    """Return the fingerprint of a table of which other columns than the usual ones are read."""
    named = [config.image_column, config.label_column]
    return hashlib.sha256(f"{digest} {named}".encode()).hexdigest() if any(named) else digest


def checked_classes(names: list[str], uri: str) -> list[str]:
    """Return the class names of the dataset at ``uri``; UserError if there are fewer than two, or two look alike."""
    check_told_apart(uri, names)
    if len(names) < 2:
        raise UserError(f"dataset {uri} has a single class; at least 2 are needed, and there is only {names}")
    return names
