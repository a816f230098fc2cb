"""Files beside a dataset that are no part of it: counted by suffix, with the reason."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.passed_over import without_system_folders
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.listing import Entry, Listing

_UNREAD = "images of this format are not read; convert them to PNG or JPEG"
_FORMATS = (  # noqa: SIM905
    "heic heif hif jxl jp2 j2k jpx j2c tga psd psb svg svgz exr hdr dcm dicom dng cr2 cr3 nef arw orf rw2 raf pcx xbm "
    "xpm dds sgi apng"
).split()
_RECORDS = "h5 hdf5 pkl pickle joblib pt pth safetensors tfrecord tfrecords mdb lmdb db3 sqlite rec beton".split()  # noqa: SIM905
_DATA = ("npy", "npz", "mat", "nii", "raw", "rgb", "pdf", "eps", "ai", "xcf", "ico", "icns")
_IMAGES = "jpg jpeg jpe jfif png bmp webp pbm pgm pnm ppm tif tiff gif avif".split()  # noqa: SIM905
UNREAD = rf"(?i)\.({'|'.join(_FORMATS)})$"
"""Pattern of the paths of images that are not read."""
_REASONS = {
    **{f".{suffix}": _UNREAD for suffix in (*_FORMATS, *_DATA)},
    **{f".{suffix}": "archives are not read; unpack them" for suffix in ("zip", "gz", "tgz", "bz2", "xz", "zst", "7z")},
    **{f".{suffix}": "Parquet files are read as .parquet; rename them" for suffix in ("pq", "parq", "pqt")},
    **{f".{suffix}": "lists are read as .csv, .tsv, .jsonl or .parquet" for suffix in ("xlsx", "xls", "ods")},
    **{f".{suffix}": "not read beside the others" for suffix in (*_IMAGES, "parquet", "arrow", "feather", "ipc")},
    **{f".{suffix}": "not read; write the images as files, Parquet or tars" for suffix in _RECORDS},
    ".tar": "tar files are read where no images are beside them",
    **{f".{suffix}": "videos are not read" for suffix in ("mp4", "avi", "mov", "mkv", "webm")},
}


def reason_of(path: str, reason: str = "not an image") -> str:
    """Return why a file is left out, from its suffix; ``reason`` where that says nothing."""
    name = path.rpartition("/")[2].lower()
    return _REASONS.get(f".{name.rpartition('.')[2]}" if "." in name else "", reason)


class LeftOut(NamedTuple):
    """Files that are left out for one reason.

    Attributes:
        suffix: the end of their names in lower case, with the dot; empty for names without one.
        reason: why they are not read.
        files: how many they are.
        example: the path of one of them.
    """

    suffix: str
    reason: str
    files: int
    example: str

    def __str__(self) -> str:
        return f"{self.files:,} {self.suffix or 'without a suffix'} ({self.reason})"


def no_files(storage: Storage, skip: bool) -> tuple[LeftOut, ...]:
    """Count what the listing of a local folder met that is no file.

    Args:
        storage: the folder.
        skip: whether links that lead nowhere are left out, too.

    Raises:
        UserError: there are such links, and they are not.
    """
    if not isinstance(storage, LocalStorage):
        return ()
    nowhere = _listing(storage.dangling)
    if nowhere and not skip:
        links = "1 link leads" if len(nowhere) == 1 else f"{len(nowhere):,} links lead"
        target = (storage.root / nowhere[0].path).readlink()
        raise UserError(
            f"in {storage.root}, {links} to what is not there, such as {nowhere[0].path} to {target}; "
            "copy what they lead to (cp -rL does), or leave them out with split.on_bad=skip"
        )
    special = left_out(_listing(storage.special), [], "pipes, sockets and devices are not read", always=True)
    return special + left_out(nowhere, [], "links to what is not there", always=True)


def _listing(paths: Iterable[str]) -> Listing:
    return without_system_folders(Listing.of(Entry(path, 0, "") for path in sorted(paths)))


def left_out(
    files: Listing, used: Iterable[str], reason: str = "not an image", always: bool = False
) -> tuple[LeftOut, ...]:
    """Count the files that are not used, by suffix.

    Args:
        files: all files of a dataset.
        used: the paths of those that are used.
        reason: why files of suffixes that say nothing are left out.
        always: whether this is the reason for all suffixes.
    """
    paths = used if isinstance(used, pa.Array) else pa.array(used, pa.string())
    if len(paths) == len(files) and paths.equals(files.paths):
        return ()
    others = files.paths.filter(pc.invert(pc.is_in(files.paths, value_set=paths)))
    if not len(others):
        return ()
    suffixes = pc.struct_field(pc.extract_regex(others, r"(?P<suffix>\.[^./]*)$"), "suffix")
    suffixes = pc.utf8_lower(pc.fill_null(suffixes, "")).dictionary_encode()
    codes = suffixes.indices.to_numpy()
    counts, firsts = np.bincount(codes), np.unique(codes, return_index=True)[1]
    found = [
        LeftOut(suffix, reason if always else _REASONS.get(suffix, reason), int(count), others[int(first)].as_py())
        for suffix, count, first in zip(suffixes.dictionary.to_pylist(), counts, firsts, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: (-one.files, one.suffix)))


def summary(files: Iterable[LeftOut], most: int = 5) -> str:
    """Describe in one line what is left out; empty if that is nothing.

    >>> summary([LeftOut(".heic", "not read", 3, "a/1.heic"), LeftOut("", "not an image", 1, "b")])
    'left out: 3 .heic (not read), 1 without a suffix (not an image)'
    """
    found = list(files)
    if not found:
        return ""
    rest = sum(one.files for one in found[most:])
    texts = [*map(str, found[:most]), *([f"{rest:,} of other suffixes"] if rest else [])]
    return f"left out: {', '.join(texts)}"
