"""Which of the tables that name images are lists of their labels: several may name them, for other reasons."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from pfs_core.data.formats.list_columns import Candidate, Listed
from pfs_core.data.parts import TRAINING, is_held_out
from pfs_core.errors import UserError


class Choice(NamedTuple):
    """What is taken for lists of labels.

    Attributes:
        read: the tables to read.
        sure: whether they are lists of labels for certain, so that folders are not the classes.
        others: those that are not read.
    """

    read: list[Candidate]
    sure: bool
    others: list[Candidate]


def chosen(found: Sequence[Candidate], images: int) -> Choice:
    """Choose the tables that are lists with the least doubt.

    In doubt are lists whose labels are in a column of any name, and more so those that name a few images by numbers:
    these are often the numbers of classes or epochs.

    Args:
        found: the tables that name images.
        images: the number of images of the dataset.
    """
    numbered = [one.images for one in found if one.numbers]
    few = bool(numbered) and len(np.unique(np.concatenate(numbered))) * 2 <= images
    doubts = [(one.numbers and (few or _names_classes(one))) * 2 + (not one.named) for one in found]
    least = min((doubt for one, doubt in zip(found, doubts, strict=True) if one.has_labels), default=0)
    read: list[Candidate] = []
    others: list[Candidate] = []
    for one, doubt in zip(found, doubts, strict=True):
        (read if one.has_labels and doubt == least else others).append(one)
    sure = not least or any(one.wanted for one in read)
    return Choice(read, bool(read) and sure, others)


def not_used(others: Sequence[Candidate], instead: str) -> tuple[str, ...]:
    """Say why tables that name images are not read, and what is done ``instead``."""
    reasons: dict[str, list[str]] = {}
    for one in others:
        if one.named or not one.numbers:
            reasons.setdefault(_reason(one), []).append(one.path)
    return tuple(
        f"{paths[0]}{f' (and {len(paths) - 1} more)' if len(paths) > 1 else ''} {reason}; {instead}"
        for reason, paths in reasons.items()
    )


def _reason(one: Candidate) -> str:
    if not one.has_labels:
        return "has no column of labels"
    if one.numbers:
        return f"has numbers that are names of {len(one.images):,} images, but may count something else"
    return f"has no column called label, class or the like (split.label_column names one: {', '.join(one.columns)})"


def lists_of(uri: str, read: Sequence[Candidate]) -> list[Listed]:
    """Return what the tables say that were chosen.

    Raises:
        UserError: one of them is refused, or it is a guess which columns have the labels, and they differ.
    """
    refused = [one for one in read if one.fault]
    if refused:
        raise max(refused, key=lambda one: len(one.images)).fault  # type: ignore[misc]
    found = [one.listed for one in read if one.listed]
    guessed = {one.listed.label: one.path for one in read if one.listed and not one.named}
    if len(guessed) > 1:
        (column, path), (other, there) = list(guessed.items())[:2]
        raise UserError(
            f"{uri}: are the labels in {column!r}, as {path} has it, or in {other!r}, as {there} has it? "
            "Name the column with split.label_column"
        )
    return found


def of_parts(found: Sequence[Listed]) -> list[Listed]:
    """Return the lists that say parts where some are of training and others are held out, else all."""
    parts = {part for one in found for part in one.parts}
    beside = TRAINING in parts and any(map(is_held_out, parts))
    return [one for one in found if any(one.parts) or not beside]


def check_repeated(uri: str, found: Sequence[Listed], guessed: bool) -> None:
    """Raise UserError if there are about as many labels as images to train on, as of digests or masks.

    Args:
        uri: the address of the dataset.
        found: the lists.
        guessed: whether it is a guess that their labels are labels.
    """
    labels = [
        text
        for one in found
        for text, part in zip(one.labels.to_pylist(), one.parts, strict=True)
        if not is_held_out(part)
    ]
    different = len(set(labels))
    if len(labels) > 2 and (different == len(labels) or (guessed and different * 2 > len(labels))):
        one = max(found, key=lambda one: len(one.images))
        raise UserError(
            f"{uri}/{one.path}: column {one.label!r} says {different:,} different things of {len(labels):,} "
            "images, so these are no classes; name the column of labels with split.label_column"
        )


def _names_classes(one: Candidate) -> bool:
    """Whether a table has another label in each row and says no parts, like that of the names of the classes."""
    listed = one.listed
    return bool(listed and not any(listed.parts) and pc.count_distinct(listed.labels).as_py() == len(listed.labels))
