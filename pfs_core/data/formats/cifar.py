"""CIFAR-10 and CIFAR-100 as published for Python: pickled dictionaries of pixels and labels.

Unpickling can run arbitrary code. These files are therefore read by an unpickler that admits only what they are made
of, numpy arrays and plain types.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.data.left_out import left_out
from pfs_core.errors import UserError
from pfs_core.storage import Storage
from pfs_core.storage.listing import Entry, Listing

_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_CIFAR10 = [f"data_batch_{i}" for i in range(1, 6)]


def load_cifar(storage: Storage, files: Listing) -> Source:
    """Read all images of CIFAR-10, or of CIFAR-100 with its fine labels, uint8 [N, 3, 32, 32].

    Raises:
        UserError: a file is missing, is not what it should be, or holds anything but arrays and plain values.
    """
    entries = {entry.path: entry for entry in files}
    if "batches.meta" in entries:
        training, test, meta = _CIFAR10, "test_batch", "batches.meta"
        key, names_key = "labels", "label_names"
    else:
        training, test, meta = ["train"], "test", "meta"
        key, names_key = "fine_labels", "fine_label_names"
    pixels, labels, sizes = [], [], []
    for name in [*training, test, meta]:
        if name not in entries:
            raise UserError(f"{storage.uri} has no {name}; unpack the whole archive of CIFAR for Python there")
    for name in [*training, test]:
        data, label = _images_and_labels(f"{storage.uri}/{name}", _load(storage, entries[name], ("data", key)), key)
        pixels.append(data.reshape(-1, 3, 32, 32))
        labels.append(label.astype(np.int64))
        sizes.append(len(data))
    names = _load(storage, entries[meta], (names_key,))[names_key]
    if not isinstance(names, list | tuple) or not all(isinstance(one, bytes | str) for one in names):
        raise UserError(f"{storage.uri}/{meta} is no CIFAR file: its {names_key!r} are no list of texts")
    names = [_text(one) for one in names]
    all_labels = np.concatenate(labels)
    count = len(all_labels)
    if all_labels.min() < 0 or all_labels.max() >= len(names):
        raise UserError(f"{storage.uri}: a label is outside 0 to {len(names) - 1}")
    return Source(
        uri=storage.uri,
        kind="arrays",
        files=Listing.of(entries[name] for name in [*training, test]),
        file=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        group=np.zeros(count, dtype=np.int32),
        row=np.concatenate([np.arange(size) for size in sizes]),
        labels=all_labels,
        is_test=np.arange(count) >= count - sizes[-1],  # the file of the test set comes last
        names=None,
        class_names=checked_classes(names, storage.uri),
        flip=True,
        fingerprint=fingerprint(storage, files),
        images=torch.from_numpy(np.concatenate(pixels)),
        left_out=left_out(files, [*training, test, meta]),
    )


def _load(storage: Storage, entry: Entry, keys: Sequence[str]) -> dict[str, Any]:
    """Read the pickled dictionary of a file, with its keys as text; UserError if one of ``keys`` is missing."""
    name = f"{storage.uri}/{entry.path}"
    data = storage.read(entry)
    try:
        values = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except UserError as e:
        raise UserError(f"{name} {e}") from None
    except Exception as e:
        raise UserError(f"{name} is no CIFAR file: {str(e) or type(e).__name__}") from None
    values = values if isinstance(values, dict) else {}
    values = {_text(key): value for key, value in values.items() if isinstance(key, bytes | str)}
    for key in keys:
        if key not in values:
            raise UserError(f"{name} is no CIFAR file: it has no {key!r}")
    return values


def _images_and_labels(name: str, batch: dict[str, Any], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what a file has at ``data`` and ``key``, uint8 [n, 3072] and int [n]; UserError if that is anything else.

    Both are whatever was pickled: lists of lists that differ in length, and numbers of any size, are no arrays.
    """
    try:
        data, label = np.asarray(batch["data"]), np.asarray(batch[key])
    except (ValueError, TypeError, OverflowError, RecursionError):
        data = label = np.empty(0)
    if data.dtype != np.uint8 or data.shape != (label.size, 3072) or label.ndim != 1 or label.dtype.kind != "i":
        raise UserError(f"{name} is no CIFAR file: it does not hold 3072 bytes and an integer label per image")
    if not len(data):
        raise UserError(f"{name} is no CIFAR file: it holds no images")
    return data, label


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain values, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise UserError(f"asks for {module}.{name}, which no CIFAR file needs; it was not read")
        return super().find_class(module, name)
