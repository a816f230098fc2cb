"""A labelled set of images, wherever it comes from: its rows, and where their bytes are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from pfs_core.data.downloads import PREFIX, check_name, downloaded
from pfs_core.errors import UserError
from pfs_core.listing import Listing
from pfs_core.storage import LocalStorage, Storage, open_storage

PARQUET = r"^[^/]*\.parquet$"
IDX = r"-ubyte(\.gz)?$"
IMAGES = r"(?i)\.(jpe?g|png|bmp|webp|ppm|tiff?)$"
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


def open_source(uri: str) -> Source:
    """The rows of the dataset at ``uri``.

    Args:
        uri: ``digits``, or a folder, ``file://`` or ``s3://`` address of Parquet files (:mod:`pfs_core.data.parquet`),
            of a folder of images a class (:mod:`pfs_core.data.tree`), of IDX files (:mod:`pfs_core.data.idx`) or of
            CIFAR's Python files (:mod:`pfs_core.data.cifar`); ``torchvision:NAME`` is downloaded first.

    Raises:
        UserError: there is no such dataset, or what it holds is of none of these kinds or broken.
    """
    if uri == "digits":
        from pfs_core.data.digits import load_digits

        return load_digits()
    if uri.startswith(PREFIX):
        return replace(open_source(str(downloaded(uri.removeprefix(PREFIX)))), uri=uri)
    storage = _storage(uri)
    files = storage.files()
    if files.matching(PARQUET):
        from pfs_core.data.parquet import open_parquet

        return open_parquet(storage, files)
    if files.matching(IDX):
        from pfs_core.data.idx import load_idx

        return load_idx(storage, files)
    if files.named("data_batch_1", "train") and files.named("batches.meta", "meta"):
        from pfs_core.data.cifar import load_cifar

        return load_cifar(storage, files)
    if files := files.matching(IMAGES):
        from pfs_core.data.tree import open_tree

        return open_tree(storage, files)
    raise UserError(
        f"dataset {uri} holds no *.parquet file, no folder of images a class, no IDX and no CIFAR Python files"
    )


def check_dataset(uri: str) -> None:
    """Raise UserError unless ``uri`` may be a dataset, without listing a bucket, downloading or reading rows."""
    if uri.startswith(PREFIX):
        check_name(uri.removeprefix(PREFIX))
    elif uri != "digits" and isinstance(storage := _storage(uri), LocalStorage) and not any(storage.root.iterdir()):
        raise UserError(f"dataset {uri} is an empty folder")


def content_of(uri: str) -> str:
    """What changes when the dataset at ``uri`` does, from a listing alone: see :func:`fingerprint`.

    Embedded and downloaded sets have their names: those do not change.

    Raises:
        UserError: there is nothing at ``uri``.
    """
    if uri == "digits" or uri.startswith(PREFIX):
        return uri
    storage = _storage(uri)
    return fingerprint(storage, storage.files())


def _storage(uri: str) -> Storage:
    storage = open_storage(uri)
    if isinstance(storage, LocalStorage):
        if not storage.root.exists():
            hint = "" if "/" in uri or "." in uri else " and is no dataset that comes with pfs"
            raise UserError(f"dataset {uri!r} does not exist{hint}; use digits, or a folder or s3:// prefix of images")
        if not storage.root.is_dir():
            raise UserError(f"dataset {uri} is a file; name the folder that holds it")
    return storage


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
