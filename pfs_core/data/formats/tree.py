"""Folders of images: one folder per class, or ``train`` and ``val`` (or ``test``) folders of such folders.

A class is named after its folder, and labels are positions in the sorted names. Images in subfolders of a class folder
belong to the class too.
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
"""Pattern of the paths of the files of this format."""

_TRAINING = {"train", "training"}
_HELD_OUT = {"val", "valid", "validation", "test"}
GROUP = 256
"""Number of images that are read together, like a row group of a Parquet file."""


def open_tree(storage: Storage, files: Listing) -> Source:
    """Index an image tree; no image is read.

    Args:
        storage: the root of the tree.
        files: the images.

    Raises:
        UserError: an image lies outside a class folder, a class has no images, or a class of the held-out part is
            missing in the training part.
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
        class_names=checked_classes(names, storage.uri),
        flip=True,
        fingerprint=fingerprint(storage, files),
    )


def _folders(files: Listing, depth: int) -> pa.DictionaryArray:
    """Return the name of the folder at level ``depth`` of each path, counted from 0; null where there is none."""
    pattern = rf"^(?:[^/]*/){{{depth}}}(?P<folder>[^/]*)/"
    names = (pc.struct_field(pc.extract_regex(chunk.paths, pattern), "folder") for chunk in files.chunks())
    return pa.chunked_array([chunk.dictionary_encode() for chunk in names]).unify_dictionaries().combine_chunks()


def _among(texts: pa.DictionaryArray, known: Collection[str]) -> np.ndarray:
    """Return, as bool [N], which of the texts are among ``known``."""
    result: np.ndarray = np.array([text in known for text in texts.dictionary.to_pylist()])[texts.indices.to_numpy()]
    return result


def _check_folders(storage: Storage, tops: set[str], names: Collection[str]) -> None:
    """Raise UserError if a local class folder has no images, which would silently shift all labels after it.

    S3 has no empty folders.
    """
    if not isinstance(storage, LocalStorage):
        return
    for top in sorted(tops):
        for folder in sorted((storage.root / top).iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names:
                raise UserError(f"class folder {folder} holds no training images; remove it or fill it")
