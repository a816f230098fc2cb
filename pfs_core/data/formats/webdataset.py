"""WebDataset shards: tar files of ``KEY.jpg`` (or another image) and ``KEY.cls``, its label.

A label is a number from 0 or the name of a class. ``split.label_column`` and ``split.image_column`` name other
extensions. Images are read from the shards as they are; nothing is unpacked.
"""

import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels, label_fault
from pfs_core.data.dataset import Source, checked_classes, column_fingerprint, fingerprint
from pfs_core.data.formats.several_files import read_files
from pfs_core.data.formats.tree import IMAGES
from pfs_core.data.left_out import LeftOut, left_out
from pfs_core.data.parts import check_folders
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

TARS = r"(?i)\.tar$"
"""Pattern of the paths of the files of this format."""

_GROUP = 64
_MOST = 1024


class _Scanned(NamedTuple):
    """A shard as columns: labels, paths, offsets and sizes of the images; and the members that are left out."""

    labels: Labels
    paths: pa.Array
    offsets: np.ndarray
    sizes: np.ndarray
    left_out: tuple[LeftOut, ...]


@dataclass
class _Shard:
    """A shard that is being read: paths, offsets and sizes of the images and their labels; and the members left out.

    ``samples`` has the members of each key by extension, and ``contents`` the beginnings of the labels by name.
    """

    samples: dict[str, dict[str, tarfile.TarInfo]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def leave_out(self, member: tarfile.TarInfo, reason: str) -> None:
        """Count a member that is no image with a label."""
        key = (f".{_split(member.name)[1]}".rstrip("."), reason)
        self.left_out[key] += 1
        self.examples.setdefault(key, member.name)


def open_tars(storage: Storage, files: Listing, config: SplitConfig) -> Source:
    """Index the images of all shards; headers and labels are read.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which extensions have the images and the labels.

    Raises:
        UserError: a shard is no whole tar file, or has no image with a label; a label is no number in one place and one
            in another, or is out of range.
    """
    tars = files.matching(TARS)
    paths = tars.paths.to_pylist()
    check_folders(storage.uri, paths, "tar files")
    rows = read_files(storage.uri, tars, lambda entry, held_out: _scan(storage, entry, held_out, config))
    shards = rows.found
    numbers = np.concatenate([np.arange(count) for count in rows.counts])
    return Source(
        uri=storage.uri,
        kind="tar",
        files=rows.files,
        file=rows.file,
        group=(numbers // _GROUP).astype(np.int32),
        row=numbers,
        labels=rows.classes.labels,
        is_test=rows.parts.is_test,
        names=pa.concat_arrays([shard.paths for shard in shards]),
        class_names=checked_classes(rows.classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(fingerprint(storage, rows.files), config),
        is_validation=rows.parts.is_validation,
        notes=rows.notes,
        left_out=left_out(files, paths) + rows.left_out + _members_left_out(shards),
        offset=np.concatenate([shard.offsets for shard in shards]),
        size=np.concatenate([shard.sizes for shard in shards]),
    )


def _scan(storage: Storage, entry: Entry, held_out: bool, config: SplitConfig) -> _Scanned | None:
    """Read the headers and the labels of a shard; None if it is empty."""
    place = f"{storage.uri}/{entry.path}"
    shard = _Shard()
    try:
        with tarfile.open(fileobj=open_file(storage, entry), mode="r:") as tar:
            _read_members(place, tar, shard, config.label_column or "cls")
            _check_end(tar)
    except tarfile.TarError as e:
        raise UserError(f"{place} is no whole tar file: {e}") from None
    if not shard.samples and not shard.left_out:
        return None
    for kinds in shard.samples.values():
        _add(place, kinds, shard, config)
    if not shard.paths:
        raise _no_image(place, shard, config)
    return _Scanned(
        _labels(place, shard, held_out),
        pa.array(shard.paths, pa.string()),
        np.array(shard.offsets, dtype=np.int64),
        np.array(shard.sizes, dtype=np.int64),
        tuple(LeftOut(*key, count, shard.examples[key]) for key, count in shard.left_out.items()),
    )


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros follow the last member, as at the end of every archive.

    The library takes anything between two members for the end, also that of a file that was cut short there.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short or damaged; make or download it again")


def _no_image(place: str, shard: _Shard, config: SplitConfig) -> UserError:
    """Return the error that a shard has no image with a label, which says what it has."""
    found = Counter(kind for kinds in shard.samples.values() for kind in kinds)
    kinds = ", ".join(f".{kind}" if kind else "no extension" for kind, _ in found.most_common(6))
    return UserError(
        f"{place} has no image with a label; expected KEY.{config.image_column or 'jpg'} and "
        f"KEY.{config.label_column or 'cls'} with one KEY, and there are {kinds or 'links only'}; name other "
        "extensions with split.label_column and split.image_column"
    )


def _read_members(place: str, tar: tarfile.TarFile, shard: _Shard, label: str) -> None:
    """Sort the members of a shard by key, and read its labels; links are left out, and hidden files passed over."""
    for member in tar:
        if member.issym() or member.islnk():
            shard.leave_out(member, "links are not followed")
        if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
            continue
        key, kind = _split(member.name)
        if shard.samples.setdefault(key, {}).setdefault(kind, member) is not member:
            raise UserError(f"{place}: several files are named like {member.name}; give every image a key of its own")
        if kind == label:
            content = tar.extractfile(member)
            assert content is not None
            shard.contents[member.name] = content.read(_MOST + 1)


def _add(place: str, kinds: dict[str, tarfile.TarInfo], shard: _Shard, config: SplitConfig) -> None:
    """Add the image of a key to a shard, if it has a label."""
    wanted = config.image_column
    images = [
        kind for kind in kinds if (kind == wanted if wanted else re.search(IMAGES, f".{kind}") and "." not in kind)
    ]
    label = kinds.get(config.label_column or "cls")
    for kind, member in kinds.items():
        if kind in images[1:]:
            shard.leave_out(member, "another image of the same key is used")
        elif kind in images and label is None:
            shard.leave_out(member, "has no label")
        elif member is label and not images:
            shard.leave_out(member, "has no image")
        elif kind not in images and member is not label:
            shard.leave_out(member, "neither image nor label")
    if not images or label is None:
        return
    image = kinds[images[0]]
    shard.paths.append(image.name)
    shard.offsets.append(image.offset_data)
    shard.sizes.append(image.size)
    shard.labels.append(_label(place, label, shard.contents[label.name]))


def _label(place: str, member: tarfile.TarInfo, content: bytes) -> str:
    """Decode the content of a label; UserError if it is none."""
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UserError(f"{place}, {member.name}: the label is not UTF-8") from None
    fault = label_fault(text) if member.size <= _MOST else f"has {member.size:,} bytes, too many for a class"
    if fault:
        raise UserError(f"{place}, {member.name}: the label {fault}")
    return text


def _split(path: str) -> tuple[str, str]:
    """Divide a path at the first dot of its last part.

    >>> _split("a.b/7.seg.PNG")
    ('a.b/7', 'seg.png')
    """
    folder, slash, name = path.rpartition("/")
    key, _, kind = name.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _labels(place: str, shard: _Shard, held_out: bool) -> Labels:
    """Return the labels of a shard, which are all numbers or all names."""
    numbers = [re.fullmatch(r"-?\d{1,9}", text) is not None for text in shard.labels]
    if all(numbers):
        return Labels(place, np.array(shard.labels, dtype=np.int64), None, held_out)
    if any(numbers):
        raise UserError(f"{place}, {shard.paths[numbers.index(True)]}: the label is a number and others are names")
    names = sorted(set(shard.labels))
    position = {name: i for i, name in enumerate(names)}
    codes = np.array([position[text] for text in shard.labels], dtype=np.int64)
    return Labels(place, codes, names, held_out, is_text=True)


def _members_left_out(shards: list[_Scanned]) -> tuple[LeftOut, ...]:
    total: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for one in (one for shard in shards for one in shard.left_out):
        total[one.suffix, one.reason] += one.files
        examples.setdefault((one.suffix, one.reason), one.example)
    return tuple(LeftOut(*key, count, examples[key]) for key, count in total.most_common())
