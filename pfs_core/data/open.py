"""From the address of a dataset to its rows: finds out the format, and whether there is a dataset at all."""

from dataclasses import replace

from pfs_core.data.dataset import Source, fingerprint
from pfs_core.data.formats.cifar import load_cifar
from pfs_core.data.formats.digits import load_digits
from pfs_core.data.formats.downloads import PREFIX, check_name, downloaded
from pfs_core.data.formats.idx import IDX, load_idx
from pfs_core.data.formats.parquet import PARQUET, open_parquet
from pfs_core.data.formats.tree import IMAGES, open_tree
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage, open_storage


def open_source(uri: str) -> Source:
    """Index the rows of the dataset at ``uri``.

    Args:
        uri: ``digits``, or a folder, ``file://`` or ``s3://`` address with files in one of the formats of
            :mod:`pfs_core.data.formats`: Parquet files, one folder of images per class, IDX files or CIFAR's Python
            files; or ``torchvision:NAME``, which is downloaded first.

    Raises:
        UserError: there is no such dataset, its format is not known, or it is broken.
    """
    if uri == "digits":
        return load_digits()
    if uri.startswith(PREFIX):
        return replace(open_source(str(downloaded(uri.removeprefix(PREFIX)))), uri=uri)
    storage = _storage(uri)
    files = storage.files()
    if files.matching(PARQUET):
        return open_parquet(storage, files)
    if files.matching(IDX):
        return load_idx(storage, files)
    if files.named("data_batch_1", "train") and files.named("batches.meta", "meta"):
        return load_cifar(storage, files)
    if files := files.matching(IMAGES):
        return open_tree(storage, files)
    raise UserError(
        f"dataset {uri} holds no *.parquet file, no class folders with images, no IDX and no CIFAR Python files"
    )


def check_dataset(uri: str) -> None:
    """Raise UserError unless ``uri`` may be a dataset, without listing a bucket, downloading or reading rows."""
    if uri.startswith(PREFIX):
        check_name(uri.removeprefix(PREFIX))
    elif uri != "digits" and isinstance(storage := _storage(uri), LocalStorage) and not any(storage.root.iterdir()):
        raise UserError(f"dataset {uri} is an empty folder")


def content_of(uri: str) -> str:
    """Return a text that changes whenever the dataset at ``uri`` changes, from a listing of its files.

    It is the :func:`~pfs_core.data.dataset.fingerprint` of the files. Embedded and downloaded datasets never change, so
    their names are returned.

    Raises:
        UserError: there is nothing at ``uri``.
    """
    if uri == "digits" or uri.startswith(PREFIX):
        return uri
    storage = _storage(uri)
    return fingerprint(storage, storage.files())


def _storage(uri: str) -> Storage:
    """Open the address of a dataset; UserError if it is local and is not a folder."""
    storage = open_storage(uri)
    if isinstance(storage, LocalStorage):
        if not storage.root.exists():
            hint = "" if "/" in uri or "." in uri else " and is no dataset that comes with pfs"
            raise UserError(f"dataset {uri!r} does not exist{hint}; use digits, or a folder or s3:// prefix of images")
        if not storage.root.is_dir():
            raise UserError(f"dataset {uri} is a file; name the folder that holds it")
    return storage
