"""One list of classes from the lists of several files: matched by name where files name their classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pfs_core.errors import UserError


class Labels(NamedTuple):
    """The labels of one file.

    Attributes:
        place: address of the file, for messages.
        codes: int64 [n], positions in ``names``, or the numbers that stand for the classes.
        names: the names of the classes, if the file has them.
        held_out: whether the file is of a part that is not trained on.
        is_text: whether the labels are stored as names.
    """

    place: str
    codes: np.ndarray
    names: list[str] | None
    held_out: bool = False
    is_text: bool = False


class Merged(NamedTuple):
    """The labels of all files, int64 [N], the names of the classes, and sentences about them."""

    labels: np.ndarray
    names: list[str]
    notes: tuple[str, ...]


def merge_labels(files: Sequence[Labels]) -> Merged:
    """Bring the labels of all files to one list of classes.

    Files that name the same classes in the same order keep it. Lists that differ are merged by name, sorted. Numbers
    without names must count from 0 without a gap.

    Raises:
        UserError: a label is out of range, a held-out file has a class that no training file has, some files name
            their classes and others do not although the lists differ, or a list has a name twice.
    """
    named = [file for file in files if file.names is not None]
    if not named:
        return _numbered(files)
    first = named[0]
    assert first.names is not None
    for file in files:
        _check_range(file, file.names or first.names, "are named in its schema")
    if all(file.names == first.names for file in named):
        return Merged(np.concatenate([file.codes for file in files]), first.names, ())
    return _by_name(files, first)


def _by_name(files: Sequence[Labels], first: Labels) -> Merged:
    """Merge lists that differ."""
    other = next(file for file in files if file.names != first.names)
    for file in files:
        if file.names is None:
            raise UserError(f"{file.place} does not name its classes, and those of {first.place} and others differ")
        if len(set(file.names)) < len(file.names):
            raise UserError(f"{file.place} names two classes alike, and {other.place} names others: {_few(file.names)}")
    training = [file for file in files if not file.held_out]
    names = sorted({name for file in training for name in file.names or ()})
    position = {name: i for i, name in enumerate(names)}
    labels = []
    for file in files:
        own = np.array([position.get(name, -1) for name in file.names or ()], dtype=np.int64)
        codes = own[file.codes]
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            row = int(missing[0])
            name = (file.names or [])[file.codes[row]]
            raise UserError(
                f"{file.place}, row {row}: class {name!r} has no training images; {training[0].place} and the other "
                f"training files have {_few(names)}"
            )
        labels.append(codes)
    texts = all(file.is_text for file in files)
    note = f"the classes of {first.place} and {other.place} differ: matched by name, {len(names)} in all"
    return Merged(np.concatenate(labels), names, () if texts else (note,))


def _numbered(files: Sequence[Labels]) -> Merged:
    """Name classes by their numbers."""
    for file in files:
        _check_not_negative(file)
    seen = np.unique(np.concatenate([file.codes for file in files if not file.held_out]))
    # Without names, a gap in the labels is more likely a mistake in them than a class without images.
    count = int(np.cumprod(seen == np.arange(len(seen))).sum())
    names = [str(i) for i in range(count)]
    for file in files:
        if not count:
            raise UserError(
                f"{file.place}, row 0: labels count from {seen[0]} to {seen[-1]}, but must count from 0; "
                "renumber them, or name the classes"
            )
        gap = f" (no row has label {count})" if len(seen) > count else ""
        _check_range(file, names, f"occur in the training files without a gap{gap}")
    return Merged(np.concatenate([file.codes for file in files]), names, ())


def _check_range(file: Labels, names: Sequence[str], known: str) -> None:
    """Raise UserError if a label is no position in ``names``."""
    _check_not_negative(file)
    bad = np.flatnonzero(file.codes >= len(names))
    if not len(bad):
        return
    row, label = int(bad[0]), int(file.codes[bad[0]])
    from_1 = file.codes.min() == 1 and file.codes.max() == len(names)
    hint = ", and these seem to count from 1" if from_1 else ""
    raise UserError(
        f"{file.place}, row {row}: label {label} is out of range; {len(names)} classes {known}, "
        f"so labels are 0 to {len(names) - 1}{hint}"
    )


def _check_not_negative(file: Labels) -> None:
    """Raise UserError if a label is negative, as those of rows without a label are."""
    bad = np.flatnonzero(file.codes < 0)
    if len(bad):
        row, label = int(bad[0]), int(file.codes[bad[0]])
        none = "; the file has no labels, so leave it out" if len(bad) == len(file.codes) else ""
        raise UserError(f"{file.place}, row {row}: label {label} is out of range; labels count from 0{none}")


def _few(names: Sequence[str]) -> str:
    """List some names.

    >>> _few(["a", "b"]), _few([str(i) for i in range(100)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 92 more')
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
