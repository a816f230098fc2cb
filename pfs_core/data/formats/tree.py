"""Folders of images: one folder per class, or folders of such folders that are named like parts (``train``, ``val``).

A class is named after its folder, and labels are positions in the sorted names. Images in subfolders of a class folder
belong to the class too.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from pfs_core.data.classes import alike_hint
from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.data.formats.class_folders import check_class_folders, check_read
from pfs_core.data.formats.folder_levels import Top, check_levels, folders_at, listed
from pfs_core.data.formats.masks import check_no_masks
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import EXPECTED, TRAINING, GivenParts, given_parts, part_named, parts_in
from pfs_core.errors import UserError
from pfs_core.storage import Storage
from pfs_core.storage.listing import Listing

IMAGES = r"(?i)\.(jpe?g|jpe|jfif|png|bmp|webp|p[bgnp]m|tiff?|gif|avif)$"
"""Pattern of the paths of the files of this format."""

_SHARDS = r"(?i)^[^/]*\.(tar|arrow|feather|ipc)$"
GROUP = 256
"""Number of images that are read together, like a row group of a Parquet file."""


def open_tree(storage: Storage, files: Listing) -> Source:
    """Index an image tree; no image is read.

    Args:
        storage: the root of the tree.
        files: all files below it.

    Raises:
        UserError: an image lies outside a class folder, a class has no images, a class of a held-out part is missing in
            the training part, or folders of parts and of classes are mixed.
    """
    images = files.matching(IMAGES)
    top = folders_at(images, 0)
    said = _said_by_folders(storage.uri, images, top)
    folder = folders_at(images, 1) if said else top
    outside = np.flatnonzero(folder.is_null())
    if len(outside):
        shards = files.matching(_SHARDS)
        hint = f"; {shards[0].path} and the like are read where no images are beside them" if shards else ""
        raise UserError(
            f"{storage.uri}/{images[outside[0]].path} lies in no class folder; expected CLASS/image.jpg, or a list "
            f"such as labels.csv (path,label) beside the images{hint}"
        )
    if not said:
        check_levels(storage.uri, images, _tops(images, top))
    parts = GivenParts(np.zeros(len(images), dtype=bool), None, ())
    if said:
        names = top.dictionary.to_pylist()
        which = top.indices.to_numpy()
        parts = given_parts(storage.uri, [f"{name}/" for name in names], [said[name] for name in names], which)
    training = ~parts.is_test if parts.is_validation is None else ~(parts.is_test | parts.is_validation)
    names = sorted(folder.filter(pa.array(training)).unique().to_pylist())
    check_no_masks(storage.uri, names, images, folder)
    check_read(storage.uri, files, names, 1 if said else 0)
    position = {name: i for i, name in enumerate(names)}
    labels = np.array([position.get(name, -1) for name in folder.dictionary.to_pylist()])[folder.indices.to_numpy()]
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        first = unknown[0]
        name = folder[first].as_py()
        hint = alike_hint(name, names)
        raise UserError(f"{storage.uri}/{images[first].path}: class {name!r} has no training images{hint}")
    check_class_folders(storage, files, said, names)
    return Source(
        uri=storage.uri,
        kind="tree",
        files=images,
        file=np.arange(len(images), dtype=np.int32),
        group=np.arange(len(images), dtype=np.int32) // GROUP,
        row=np.zeros(len(images), dtype=np.int64),
        labels=labels,
        is_test=parts.is_test,
        names=images.paths,
        class_names=checked_classes(names, storage.uri),
        flip=True,
        fingerprint=fingerprint(storage, images),
        is_validation=parts.is_validation,
        notes=parts.notes + _deeper(images, names, 2 if said else 1),
        left_out=left_out(files, images.paths),
    )


def _said_by_folders(uri: str, images: Listing, top: pa.DictionaryArray) -> dict[str, str]:
    """Return the part that each folder at the top stands for; nothing if they stand for classes.

    Raises:
        UserError: some of them stand for parts and others do not, or parts are below the folders of classes.
    """
    tops = _tops(images, top)
    said = {name: part_named(name) for name in tops}
    if tops and all(said.values()) and TRAINING in said.values():
        _check_no_parts_within(uri, said, tops)
        return said
    if said := _said_by_words(tops):
        return said
    whole = {part_named(name) for name in tops}
    if TRAINING in whole and len(whole - {""}) > 1:
        raise UserError(f"dataset {uri} has folders named like parts beside others ({listed(tops)}); {EXPECTED}")
    if clash := _clash(images, top, tops):
        raise UserError(
            f"dataset {uri} has folders named like parts beside others ({listed(tops)}; {clash}); {EXPECTED}"
        )
    inner = {part_named(name) for one in tops.values() for name in one.below}
    if TRAINING in inner and len(inner - {""}) > 1:
        flat = next((path for path in images.paths.to_pylist() if path.count("/") < 3), "")
        without = f", and no class folders in them ({flat})" if flat else ""
        hint = f"name {uri}/{next(iter(tops))}" if len(tops) == 1 and not flat else f"{EXPECTED}, or a list of images"
        raise UserError(f"dataset {uri} has folders named like parts below {listed(tops)}{without}; {hint}")
    if tops and all(part_named(name) for name in tops) and all(one.holds_folders for one in tops.values()):
        raise UserError(f"dataset {uri} has no training images, only {listed(tops)}; {EXPECTED}")
    if len(tops) > 1 and len({part for name in tops for part in parts_in(name)}) > 1 and all(map(parts_in, tops)):
        raise UserError(f"dataset {uri} has folders named like parts and classes at once ({listed(tops)}); {EXPECTED}")
    return {}


def _check_no_parts_within(uri: str, said: dict[str, str], tops: dict[str, Top]) -> None:
    """Raise UserError if folders of parts hold nothing but folders of parts, as some archives are unpacked."""
    for name, one in tops.items():
        if said[name] == TRAINING and one.holds_folders and all(map(part_named, one.below)):
            inner = [f"{outer}/{below}" for outer in tops for below in sorted(tops[outer].below)]
            raise UserError(f"dataset {uri} has folders named like parts within parts ({listed(inner)}); {EXPECTED}")


def _said_by_words(tops: dict[str, Top]) -> dict[str, str]:
    """Return the parts that names such as ``seg_train`` say, if each says another and they hold the same classes."""
    said = [parts_in(name) for name in tops]
    if len(tops) < 2 or any(len(one) != 1 for one in said) or not all(one.holds_folders for one in tops.values()):
        return {}
    parts = {name: one.pop() for name, one in zip(tops, said, strict=True)}
    training = [name for name, part in parts.items() if part == TRAINING]
    if len(set(parts.values())) < len(parts) or len(training) != 1:
        return {}
    return parts if all(one.below <= tops[training[0]].below for one in tops.values()) else {}


def _clash(images: Listing, top: pa.DictionaryArray, tops: dict[str, Top]) -> str:
    """Say why folders at the top can be neither parts nor classes; empty if they can be classes."""
    like_parts = {name: parts_in(name) for name in tops if parts_in(name)}
    if not like_parts or len(tops) < 2:
        return ""
    deeper = _pairs(images, top, 1) | _pairs(images, top, 2)
    below = {name: {inner for outer, inner in deeper if outer == name and inner is not None} for name in tops}
    for name, said in like_parts.items():
        named = bool(part_named(name))
        others = [other for other in tops if other != name and (named or like_parts.get(other, said) != said)]
        again = below[name] & set().union(*(below[other] for other in others), others if named else ())
        if again:
            return f"{min(again)!r} is below {name}/ and elsewhere too"
        if named and tops[name].holds_folders and len(tops[name].below) > 1:
            return f"{name}/ holds nothing but folders"
    return ""


def _tops(images: Listing, top: pa.DictionaryArray) -> dict[str, Top]:
    """Describe the folders at the top."""
    tops: dict[str, Top] = {}
    for name, below in _pairs(images, top, 1):
        one = tops.setdefault(name, Top(set(), False))
        if below is None:
            one.images = True
        else:
            one.below.add(below)
    return dict(sorted(tops.items()))


def _pairs(images: Listing, top: pa.DictionaryArray, depth: int) -> set[tuple[str, str | None]]:
    """Return the folders at the top with the names of the folders at level ``depth`` below each; None for images."""
    pairs = pa.table({"top": top, "inner": folders_at(images, depth)}).group_by(["top", "inner"]).aggregate([])
    return {(pair["top"], pair["inner"]) for pair in pairs.to_pylist() if pair["top"] is not None}


def _deeper(images: Listing, names: Collection[str], depth: int) -> tuple[str, ...]:
    """Say which folders below those of the classes were taken as part of them; nothing if there are none."""
    below = folders_at(images, depth).drop_null().unique().to_pylist()
    found = f"images in folders below ({listed(below)}) belong to them"
    return (f"classes are the folders {listed(names)}; {found}",) if below else ()
