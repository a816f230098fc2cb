"""Datasets named ``torchvision:NAME``: torchvision downloads them, and the readers of this package read them."""

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

    It is below ``PFS_DATA`` (default ``~/.cache/pfs``), and downloaded there if it does not exist.

    Raises:
        UserError: there is no such dataset, or it cannot be downloaded.
    """
    check_name(name)
    root = cache_folder("PFS_DATA")
    folder = root / FOLDERS[name]
    if not folder.is_dir():
        from torchvision import datasets

        try:
            getattr(datasets, name)(str(root), download=True)
        except Exception as e:
            raise UserError(f"dataset {PREFIX}{name} cannot be downloaded to {root}: {one_line(e)}") from None
    return folder
