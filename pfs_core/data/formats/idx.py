"""IDX files, the format in which MNIST and Fashion-MNIST are published, plain or gzipped.

Images are in ``PART-images-idx3-ubyte`` and labels in ``PART-labels-idx1-ubyte``, where PART says training (``train``)
or a held-out part (``t10k``, ``test``, ``val``); text may stand before it (``emnist-letters-train``).
As Kaggle unpacks them, each may be in a folder of its own name.
"""

import gzip
import itertools
import math
import re
import struct
import zlib

import numpy as np
import torch

from pfs_core.data.classes import Labels, Merged, merge_labels
from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import TRAINING, given_parts, is_held_out, said_by_files
from pfs_core.errors import UserError
from pfs_core.storage import Storage
from pfs_core.storage.listing import Entry, Listing

IDX = r"(?i)-ubyte(\.gz)?$"
"""Pattern of the paths of the files of this format."""

_NAME = re.compile(r"(?i)(?P<part>.*?)-?(?P<what>images|labels)[-.]idx[13]-ubyte(\.gz)?")


_IN_ITS_FOLDER = re.compile(r"(?i)(^|/)(?P<name>[^/]+)/(?P=name)$")


def load_idx(storage: Storage, files: Listing) -> Source:
    """Read all images of the training and held-out files, uint8 [N, 1, H, W].

    Raises:
        UserError: a file is missing, cut short, or not of unsigned bytes; or there are files of several datasets.
    """
    found = files.matching(IDX)
    pairs = _pairs(storage.uri, found)
    unpacked = left_out(
        found,
        [one.path for pair in pairs.values() for one in pair.values()],
        "the same file is read in another form",
        True,
    )
    names = list(pairs)
    said = said_by_files(storage.uri, names)
    images, labels = [], []
    for name, pair in pairs.items():
        images.append(_read(storage, pair["images"], dims=3))
        labels.append(_read(storage, pair["labels"], dims=1))
        if len(images[-1]) != len(labels[-1]):
            raise UserError(f"{storage.uri}: {len(images[-1])} images but {len(labels[-1])} labels for {name}")
        if not len(labels[-1]):
            raise UserError(f"{storage.uri} has no images for {name}")
    sizes = {one.shape[1:] for one in images}
    if len(sizes) > 1:
        raise UserError(f"{storage.uri}: images of {names[0]} and of {names[1]} differ in size: {sorted(sizes)}")
    parts = given_parts(storage.uri, names, said, np.repeat(np.arange(len(names)), [len(one) for one in labels]))
    _check_held_out(storage.uri, names, said, labels)
    classes = _classes([f"{storage.uri}/{pair['labels'].path}" for pair in pairs.values()], said, labels)
    count = len(classes.labels)
    return Source(
        uri=storage.uri,
        kind="arrays",
        files=found,
        file=np.zeros(count, dtype=np.int32),
        group=np.zeros(count, dtype=np.int32),
        row=np.arange(count),
        labels=classes.labels,
        is_test=parts.is_test,
        names=None,
        class_names=checked_classes(classes.names, storage.uri),
        flip=False,
        fingerprint=fingerprint(storage, found),
        images=torch.from_numpy(np.concatenate(images)).unsqueeze(1),
        is_validation=parts.is_validation,
        notes=parts.notes + classes.notes,
        left_out=left_out(files, found.paths) + unpacked,
    )


def _classes(places: list[str], said: list[str], labels: list[np.ndarray]) -> Merged:
    """Name classes by the labels of the training part, which count from 0 or, as EMNIST's letters do, from 1.

    Raises:
        UserError: there is a gap in them.
    """
    held_out = [is_held_out(part) for part in said]
    seen = np.unique(np.concatenate([some for some, held in zip(labels, held_out, strict=True) if not held]))
    first = int(np.array_equal(seen, np.arange(1, len(seen) + 1)))
    files = zip(places, labels, held_out, strict=True)
    merged = merge_labels([Labels(place, some.astype(np.int64) - first, None, held) for place, some, held in files])
    if not first:
        return merged
    names = [str(int(name) + first) for name in merged.names]
    return Merged(merged.labels, names, (f"labels count from 1: classes are {names[0]} to {names[-1]}",))


def _check_held_out(uri: str, names: list[str], said: list[str], labels: list[np.ndarray]) -> None:
    """Raise UserError if a held-out part has a label that the training part has not."""
    training = np.concatenate([some for some, part in zip(labels, said, strict=True) if not is_held_out(part)])
    for name, some in zip(names, labels, strict=True):
        unknown = np.setdiff1d(some, training)
        if len(unknown):
            raise UserError(f"{uri}: label {unknown[0]} of {name} has no training images")


def _pairs(uri: str, files: Listing) -> dict[str, dict[str, Entry]]:
    """Return the files of images and labels of each part, the training part first.

    Raises:
        UserError: one of a pair is missing, there is no training part, or two pairs are of the same part.
    """
    pairs: dict[str, dict[str, Entry]] = {}
    # A plain file comes before a gzipped one, and one that is in no folder of its own before one that is.
    for entry in sorted(files, key=lambda one: (one.path.lower().endswith(".gz"), one.path.count("/"), one.path)):
        if match := _NAME.fullmatch(_IN_ITS_FOLDER.sub(r"\1\g<name>", entry.path)):
            pairs.setdefault(match["part"], {}).setdefault(match["what"].lower(), entry)
    said = dict(zip(pairs, said_by_files(uri, list(pairs)), strict=True)) if pairs else {}
    if TRAINING not in said.values():
        raise UserError(f"{uri} has no train-images-idx3-ubyte; IDX sets need images and labels of train (and t10k)")
    for part, other in itertools.combinations(pairs, 2):
        if said[part] == said[other]:
            raise UserError(f"{uri} holds several IDX sets ({part} and {other}); keep each in a folder of its own")
    for part, pair in pairs.items():
        for what, dims in (("images", 3), ("labels", 1)):
            if what not in pair:
                name = f"{part}-{what}-idx{dims}-ubyte"
                raise UserError(f"{uri} has no {name}; IDX sets need images and labels of train (and t10k)")
    return dict(sorted(pairs.items(), key=lambda item: said[item[0]] != TRAINING))


def _read(storage: Storage, entry: Entry, dims: int) -> np.ndarray:
    """Read an IDX file as a uint8 array of ``dims`` dimensions.

    The file has 2 zero bytes, a byte for the type (8: unsigned byte), a byte for the number of dimensions, their sizes
    as big-endian 32-bit integers, and the values.
    """
    name = f"{storage.uri}/{entry.path}"
    data = storage.read(entry)
    try:
        data = gzip.decompress(data) if entry.path.lower().endswith(".gz") else data
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
