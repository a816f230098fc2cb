"""A labelled set of images, wherever it comes from."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pfs_core.errors import UserError


@dataclass(frozen=True)
class ImageSource:
    """All images of a dataset, decoded.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        files: the file of each row, N names (relative to the dataset).
        rows: int64 [N], the row within its file.
        is_test: bool [N], rows that the dataset itself gives as its test set.
        class_names: one a label.
        flip: whether a mirrored image is still of its class.
        fingerprint: hex SHA-256 of the source's content.
    """

    images: Tensor
    labels: Tensor
    files: list[str]
    rows: Tensor
    is_test: Tensor
    class_names: list[str]
    flip: bool
    fingerprint: str


def check_dataset(uri: str) -> None:
    """Raise UserError unless ``uri`` names a dataset, without reading its rows."""
    if uri == "digits":
        return
    if "://" in uri:
        raise UserError(f"dataset {uri!r}: only local folders of Parquet files and 'digits' can be read")
    from pfs_core.data.parquet import parquet_files

    if not Path(uri).exists():
        hint = "" if "/" in uri or "." in uri else " and is no dataset that comes with pfs; use digits, or"
        raise UserError(f"dataset {uri!r} does not exist{hint or '; use digits, or'} a folder of Parquet files")
    parquet_files(Path(uri))


def load_source(uri: str) -> ImageSource:
    """Read and decode the dataset at ``uri``.

    Args:
        uri: ``digits``, or a folder of Parquet files (see :mod:`pfs_core.data.parquet`).

    Raises:
        UserError: there is no such dataset, or a row of it is broken (the line names file and row).
    """
    check_dataset(uri)
    if uri == "digits":
        from pfs_core.data.digits import load_digits

        return load_digits()
    from pfs_core.data.parquet import load_parquet

    return load_parquet(Path(uri))
