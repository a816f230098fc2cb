"""A labelled set of images, wherever it comes from: its rows, and where their bytes are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.listing import Listing

_HASHED = 2 * 2**30


@dataclass(frozen=True)
class Source:
    """The rows of a dataset.

    Attributes:
        uri: its address; ``torchvision:NAME`` of what was downloaded, whose images are read at once.
        kind: ``parquet``, ``tree`` (an image a file) or ``arrays`` (pixels that are read at once).
        files: the files that hold rows.
        file: int32 [N], the position in ``files`` of each row's file.
        group: int32 [N], the row group in its file.
        row: int64 [N], the row in its file.
        labels: int64 [N].
        is_test: bool [N], rows that the dataset itself gives as its test set.
        names: what each row was called before it was packed, N texts; None where rows have no name.
        class_names: one a label.
        flip: whether a mirrored image is still of its class.
        fingerprint: hex SHA-256 of the source's content, or of what stands for it (see :func:`fingerprint`).
        images: uint8 [N, C, H, W] where ``kind`` is ``arrays``.
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

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, i: int) -> str:
        """Where row ``i`` is, for a message."""
        name = f"{self.uri}/{self.files[self.file[i]].path}" if self.kind != "arrays" else self.uri
        return name if self.kind == "tree" else f"{name}, row {self.row[i]}"


def fingerprint(storage: Storage, files: Listing) -> str:
    """Hex SHA-256 over a line ``PATH SIZE DIGEST`` a file, in path order.

    A digest is an object's ETag on S3 and the SHA-256 of a local file; local sets of more than 2 GiB are known by paths
    and sizes alone.
    """
    small = files.sizes.sum() <= _HASHED
    digest = hashlib.sha256()
    for some in files.in_path_order().chunks():
        of = some.tags
        if isinstance(storage, LocalStorage):
            of = pa.array([_sha256(storage.root / path) if small else "" for path in some.paths.to_pylist()])
        ends = pc.binary_join_element_wise(of, "", "\n")
        lines = pc.binary_join_element_wise(some.paths, pa.array(some.sizes).cast(pa.string()), ends, " ")
        digest.update(lines.buffers()[2])
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_classes(names: Sequence[str], labels: np.ndarray, source: str) -> list[str]:
    """The class names; UserError if there is one only, or none has rows."""
    if len(names) < 2:
        raise UserError(f"dataset {source} has a single class; at least 2 are needed")
    return list(names)
