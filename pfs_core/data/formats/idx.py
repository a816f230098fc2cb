"""IDX files, the format in which MNIST and Fashion-MNIST are published, plain or gzipped.

The training set is ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``; the test set has ``t10k`` in place of
``train``, and is optional.
"""

import gzip
import math
import struct
import zlib

import numpy as np
import torch

from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.errors import UserError
from pfs_core.storage import Storage
from pfs_core.storage.listing import Entry, Listing

IDX = r"-ubyte(\.gz)?$"
"""Pattern of the paths of the files of this format."""

_PARTS = (("train", False), ("t10k", True))


def load_idx(storage: Storage, files: Listing) -> Source:
    """Read all images of the training and test files, uint8 [N, 1, H, W].

    Raises:
        UserError: a file is missing, cut short, or not of unsigned bytes.
    """
    entries = {entry.path.removesuffix(".gz").replace(".idx", "-idx"): entry for entry in files}
    images, labels, is_test = [], [], []
    for part, test in _PARTS:
        names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
        if test and not any(name in entries for name in names):
            continue
        for name in names:
            if name not in entries:
                raise UserError(f"{storage.uri} has no {name}; IDX sets need images and labels of train (and t10k)")
        images.append(_read(storage, entries[names[0]], dims=3))
        labels.append(_read(storage, entries[names[1]], dims=1))
        if len(images[-1]) != len(labels[-1]):
            raise UserError(f"{storage.uri}: {len(images[-1])} images but {len(labels[-1])} labels for {part}")
        if not len(labels[-1]):
            raise UserError(f"{storage.uri} has no images for {part}")
        is_test.append(np.full(len(labels[-1]), test))
    all_labels = np.concatenate(labels).astype(np.int64)
    classes = [str(i) for i in range(int(all_labels.max()) + 1)]
    return Source(
        uri=storage.uri,
        kind="arrays",
        files=files,
        file=np.zeros(len(all_labels), dtype=np.int32),
        group=np.zeros(len(all_labels), dtype=np.int32),
        row=np.arange(len(all_labels)),
        labels=all_labels,
        is_test=np.concatenate(is_test),
        names=None,
        class_names=checked_classes(classes, storage.uri),
        flip=False,
        fingerprint=fingerprint(storage, files),
        images=torch.from_numpy(np.concatenate(images)).unsqueeze(1),
    )


def _read(storage: Storage, entry: Entry, dims: int) -> np.ndarray:
    """Read an IDX file as a uint8 array of ``dims`` dimensions.

    The file has 2 zero bytes, a byte for the type (8: unsigned byte), a byte for the number of dimensions, their sizes
    as big-endian 32-bit integers, and the values.
    """
    name = f"{storage.uri}/{entry.path}"
    data = storage.read(entry)
    try:
        data = gzip.decompress(data) if entry.path.endswith(".gz") else data
        zero, kind, count = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{count}I", data, 4)
    except (OSError, EOFError, zlib.error, struct.error) as e:
        raise UserError(f"{name} is no IDX file: {e}") from None
    if zero or kind != 8 or count != dims:
        raise UserError(f"{name} is no IDX file of unsigned bytes in {dims} dimension(s)")
    start = 4 + 4 * count
    if len(data) != start + math.prod(shape):
        raise UserError(f"{name} holds {len(data)} bytes, but its header says {start + math.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()
