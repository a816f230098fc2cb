"""Datasets named ``torchvision:NAME``: torchvision downloads them, and the readers of this package read them."""

import tempfile
from pathlib import Path

from pfs_core.errors import UserError, did_you_mean, one_line
from pfs_core.runtime.environment import cache_folder

PREFIX = "torchvision:"
FOLDERS = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
"""The folder that torchvision unpacks each dataset to."""


def check_name(name: str) -> None:
    """Raise UserError unless ``name`` is a dataset that can be downloaded."""
    if name not in FOLDERS:
        hint = did_you_mean(name, FOLDERS, PREFIX)
        raise UserError(f"unknown dataset '{PREFIX}{name}'{hint}; known: {', '.join(FOLDERS)}")


def downloaded(name: str) -> Path:
    """Return the folder of torchvision's dataset ``name``.

    It is below ``PFS_DATA`` (default ``~/.cache/pfs``). If it is not there it is downloaded beside it, and moved there
    when it is whole.

    Raises:
        UserError: there is no such dataset, or it cannot be downloaded.
    """
    check_name(name)
    root = cache_folder("PFS_DATA")
    folder = root / FOLDERS[name]
    if not _has_files(folder):
        from torchvision import datasets

        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as aside:
                getattr(datasets, name)(aside, download=True)
                _move(Path(aside) / FOLDERS[name], folder)
        except Exception as e:
            raise UserError(f"dataset {PREFIX}{name} cannot be downloaded to {root}: {one_line(e)}") from None
    return folder


def _has_files(folder: Path) -> bool:
    """Whether a folder is there and not empty, as torchvision leaves it after a download that failed."""
    return folder.is_dir() and any(folder.iterdir())


def _move(whole: Path, folder: Path) -> None:
    """Rename a folder, unless another process has put the same there in the meantime."""
    try:
        whole.rename(folder)
    except OSError:
        if not _has_files(folder):
            raise
