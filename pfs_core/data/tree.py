"""Folders of images: one folder a class, or ``train`` and ``val`` (or ``test``) folders of such folders.

Class names are the folders' names, labels their places in name order. What lies deeper belongs to the class too.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pfs_core.data.source import IMAGES, Source, checked_classes, fingerprint
from pfs_core.errors import UserError
from pfs_core.storage import Entry, LocalStorage, Storage

_TRAINING = {"train", "training"}
_HELD_OUT = {"val", "valid", "validation", "test"}
GROUP = 256
"""Images that are read together, as a row group of a Parquet file is."""


def open_tree(storage: Storage, files: Sequence[Entry]) -> Source:
    """The rows of an image tree, one a file; nothing is decoded.

    Raises:
        UserError: an image lies outside a class folder, a class has no images, or the held-out part has a class that
            the training part has not.
    """
    files = [entry for entry in files if entry.path.lower().endswith(IMAGES)]
    tops = {entry.path.split("/")[0] for entry in files}
    split = bool(tops & _TRAINING) and tops <= _TRAINING | _HELD_OUT
    depth = 1 if split else 0
    folders = [entry.path.split("/") for entry in files]
    for parts in folders:
        if len(parts) < depth + 2:
            raise UserError(f"{storage.uri}/{'/'.join(parts)} lies in no class folder; expected CLASS/image.jpg")
    held_out = np.array([split and parts[0] in _HELD_OUT for parts in folders])
    classes = [parts[depth] for parts in folders]
    names = sorted({name for name, out in zip(classes, held_out, strict=True) if not out})
    _check_folders(storage, tops if split else {""}, names)
    position = {name: i for i, name in enumerate(names)}
    for name, entry in zip(classes, files, strict=True):
        if name not in position:
            raise UserError(f"{storage.uri}/{entry.path}: class {name!r} has no training images")
    labels = np.array([position[name] for name in classes])
    return Source(
        uri=storage.uri,
        kind="tree",
        files=files,
        file=np.arange(len(files), dtype=np.int32),
        group=(np.arange(len(files)) // GROUP).astype(np.int32),
        row=np.zeros(len(files), dtype=np.int64),
        labels=labels,
        is_test=held_out,
        names=pa.array([entry.path for entry in files]),
        class_names=checked_classes(names, labels, storage.uri),
        flip=True,
        fingerprint=fingerprint(storage, files),
    )


def _check_folders(storage: Storage, tops: set[str], names: Sequence[str]) -> None:
    """A local class folder without images would silently shift every label after it."""
    if not isinstance(storage, LocalStorage):
        return
    for top in sorted(tops):
        for folder in sorted((storage.root / top).iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names:
                raise UserError(f"class folder {folder} holds no training images; remove it or fill it")
