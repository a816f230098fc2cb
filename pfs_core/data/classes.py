"""One list of classes from the lists of several files: matched by name where files name their classes."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pfs_core.errors import UserError

_MOST_DIGITS = 100
"""Numbers of more digits are no classes; Python reads none of thousands of them."""


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
    numbers = [file for file in files if file.names is None]
    if numbers and all(file.is_text for file in named):
        raise UserError(
            f"{numbers[0].place} has numbers as labels and {first.place} names; write names in all files, or numbers"
        )
    for file in files:
        _check_range(file, file.names or first.names, "are named in its schema")
    if all(file.names == first.names for file in named):
        return Merged(np.concatenate([file.codes for file in files]), first.names, ())
    return _by_name(files, first)


def label_fault(text: str) -> str:
    """Say why a text is no label; empty if it may be one.

    >>> label_fault("cat"), label_fault(" "), label_fault("0.5")
    ('', 'is missing', 'is 0.5, which is no whole number and no name of a class')
    """
    if not text.strip() or text.lower() == "nan":
        return "is missing"
    if re.fullmatch(r"-?\d*\.\d+(e[+-]?\d+)?", text.lower()):
        return f"is {text}, which is no whole number and no name of a class"
    if text.isdecimal() and len(text) > _MOST_DIGITS:
        return f"is a number of {len(text):,} digits, which is no class"
    if text[0] in "{[":
        return f"is {text[:40]!r}, which is no name of a class; write the number or the name alone"
    return "is no text" if re.search(r"[\x00-\x1f]", text) else ""


def check_told_apart(uri: str, names: Sequence[str]) -> None:
    """Raise UserError if two names of classes differ in nothing that a reader sees, or one is blank.

    The same name twice is let pass: ImageNet has two classes of cranes.
    """
    seen: dict[str, str] = {}
    for name in names:
        look = _look(name)
        if not look:
            raise UserError(f"dataset {uri} has a class without a name ({name!r}); name it")
        if (other := seen.setdefault(look, name)) != name:
            raise UserError(
                f"dataset {uri} has classes {other!a} and {name!a}, which differ in spaces, zeros in front or forms of "
                "Unicode only; give them one name, or two that can be told apart"
            )


def differing_in_capitals(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that differ in capitals only."""
    seen: dict[str, str] = {}
    pairs = [(seen.setdefault(name.casefold(), name), name) for name in names]
    return [(one, other) for one, other in pairs if one != other]


def alike_hint(name: str, names: Sequence[str]) -> str:
    """Say, after a name that is not among others, which of these was probably meant."""
    look = _look(name).casefold()
    return next((f", but {other!a} has" for other in names if _look(other).casefold() == look), "")


def _look(name: str) -> str:
    """Return what a reader takes a name for."""
    look = " ".join(unicodedata.normalize("NFC", name).split())
    return str(int(look)) if look.isdecimal() and len(look) <= _MOST_DIGITS else look


def _by_name(files: Sequence[Labels], first: Labels) -> Merged:
    """Merge lists that differ."""
    other = next(file for file in files if file.names != first.names)
    for file in files:
        if file.names is None:
            raise UserError(f"{file.place} does not name its classes, and those of {first.place} and others differ")
        if len(set(file.names)) < len(file.names):
            raise UserError(f"{file.place} names two classes alike, and {other.place} names others: {few(file.names)}")
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
                f"{file.place}, row {row}: class {name!r} has no training images{alike_hint(name, names)}; "
                f"{training[0].place} and the other training files have {few(names)}"
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


def few(names: Sequence[str]) -> str:
    """List some names.

    >>> few(["a", "b"]), few([str(i) for i in range(100)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 92 more')
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
