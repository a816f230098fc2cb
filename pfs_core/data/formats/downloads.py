"""Datasets that torchvision downloads, by ``torchvision:NAME``; read by the readers here, not by torchvision's."""

import os
from pathlib import Path

from pfs_core.errors import UserError, did_you_mean, one_line

PREFIX = "torchvision:"
FOLDERS = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
"""Where each of them is unpacked."""


def check_name(name: str) -> None:
    """Raise UserError unless ``name`` is a dataset that can be downloaded."""
    if name not in FOLDERS:
        hint = did_you_mean(name, FOLDERS, PREFIX)
        raise UserError(f"unknown dataset '{PREFIX}{name}'{hint}; known: {', '.join(FOLDERS)}")


def downloaded(name: str) -> Path:
    """The folder of torchvision's dataset ``name``, downloaded to ``PFS_DATA`` (``~/.cache/pfs``) if it is not there.

    Raises:
        UserError: it is none of these, or cannot be downloaded.
    """
    check_name(name)
    root = Path(os.environ.get("PFS_DATA") or Path.home() / ".cache" / "pfs")
    folder = root / FOLDERS[name]
    if not folder.is_dir():
        from torchvision import datasets

        try:
            getattr(datasets, name)(str(root), download=True)
        except Exception as e:
            raise UserError(f"dataset {PREFIX}{name} cannot be downloaded to {root}: {one_line(e)}") from None
    return folder
