"""Folders of images: one folder a class, or ``train`` and ``val`` (or ``test``) folders of such folders.

Class names are the folders' names, labels their places in name order. What lies deeper belongs to the class too.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.listing import Listing

IMAGES = r"(?i)\.(jpe?g|png|bmp|webp|ppm|tiff?)$"
"""The files of this format, as a pattern of their paths."""

_TRAINING = {"train", "training"}
_HELD_OUT = {"val", "valid", "validation", "test"}
GROUP = 256
"""Images that are read together, as a row group of a Parquet file is."""


def open_tree(storage: Storage, files: Listing) -> Source:
    """The rows of an image tree, one for each of ``files``, its images; nothing is decoded.

    Raises:
        UserError: an image lies outside a class folder, a class has no images, or the held-out part has a class that
            the training part has not.
    """
    top = _folders(files, 0)
    tops = set(top.unique().to_pylist())
    split = bool(tops & _TRAINING) and tops <= _TRAINING | _HELD_OUT
    folder = _folders(files, 1) if split else top
    outside = np.flatnonzero(folder.is_null())
    if len(outside):
        raise UserError(f"{storage.uri}/{files[outside[0]].path} lies in no class folder; expected CLASS/image.jpg")
    held_out = _among(top, _HELD_OUT) if split else np.zeros(len(files), dtype=bool)
    names = sorted(folder.filter(pa.array(~held_out)).unique().to_pylist())
    _check_folders(storage, tops if split else {""}, set(names))
    position = {name: i for i, name in enumerate(names)}
    labels = np.array([position.get(name, -1) for name in folder.dictionary.to_pylist()])[folder.indices.to_numpy()]
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        first = unknown[0]
        raise UserError(f"{storage.uri}/{files[first].path}: class {folder[first].as_py()!r} has no training images")
    return Source(
        uri=storage.uri,
        kind="tree",
        files=files,
        file=np.arange(len(files), dtype=np.int32),
        group=np.arange(len(files), dtype=np.int32) // GROUP,
        row=np.zeros(len(files), dtype=np.int64),
        labels=labels,
        is_test=held_out,
        names=files.paths,
        class_names=checked_classes(names, labels, storage.uri),
        flip=True,
        fingerprint=fingerprint(storage, files),
    )


def _folders(files: Listing, depth: int) -> pa.DictionaryArray:
    """The folder that is ``depth`` folders below the root on the way to each file; null where there is none."""
    pattern = rf"^(?:[^/]*/){{{depth}}}(?P<folder>[^/]*)/"
    found = (pc.struct_field(pc.extract_regex(some.paths, pattern), "folder") for some in files.chunks())
    return pa.chunked_array([folders.dictionary_encode() for folders in found]).unify_dictionaries().combine_chunks()


def _among(texts: pa.DictionaryArray, known: Collection[str]) -> np.ndarray:
    """Bool [N]: which of the texts are known."""
    return np.array([text in known for text in texts.dictionary.to_pylist()])[texts.indices.to_numpy()]


def _check_folders(storage: Storage, tops: set[str], names: Collection[str]) -> None:
    """A local class folder without images would silently shift every label after it."""
    if not isinstance(storage, LocalStorage):
        return
    for top in sorted(tops):
        for folder in sorted((storage.root / top).iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names:
                raise UserError(f"class folder {folder} holds no training images; remove it or fill it")
