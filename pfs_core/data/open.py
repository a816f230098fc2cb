"""From the address of a dataset to its rows: which format it has, and whether it is there at all."""

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
    """The rows of the dataset at ``uri``.

    Args:
        uri: ``digits``, or a folder, ``file://`` or ``s3://`` address of what :mod:`pfs_core.data.formats` read:
            Parquet files, one folder of images per class, IDX files or CIFAR's Python files; ``torchvision:NAME`` is
            downloaded first.

    Raises:
        UserError: there is no such dataset, or what it holds is of none of these kinds or broken.
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
