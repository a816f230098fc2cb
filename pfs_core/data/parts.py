"""The parts that a dataset itself has: which names say training, validation or test, and what is taken for what."""

import os
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from pfs_core.errors import UserError

TRAINING, VALIDATION, TEST, EVALUATION = "training", "validation", "test", "evaluation"
"""What a name may say; ``evaluation`` is the test part, or the validation part where another one is the test part."""
EXPECTED = "expected train/CLASS/image.jpg beside val/CLASS/ or test/CLASS/, or CLASS/image.jpg alone"
"""How folders of images may be laid out, for messages."""

PART_COLUMNS = ("split", "set", "subset", "part", "partition", "data set", "data_set", "dataset")
"""Names of columns that may say the part of a row."""
MUST_BE_PARTS = ("split", "partition")
"""Those of them that can mean nothing else."""

_SUFFIX = "(?:sets?|data|dataset|images?|imgs?|splits?)?"
_WORDS = {
    TRAINING: re.compile(f"(?:train|training|trains|trn|trainval){_SUFFIX}"),
    VALIDATION: re.compile(f"(?:val|vali|valid|validate|validation|validating|dev|development){_SUFFIX}"),
    TEST: re.compile(f"(?:test|tests|testing|tst|holdout|heldout){_SUFFIX}"),
    EVALUATION: re.compile(f"(?:eval|evaluate|evaluation){_SUFFIX}"),
}
_PARTITION = re.compile("[^/=]=[^/]")
_FLAGS = ("true", "false", "yes", "no", "t", "f", "y", "n", "0", "1", "0.0", "1.0")
_BESIDE = re.compile("sets?|data|dataset|images?|imgs?|pictures?|photos?|splits?|parts?|folder|files?")


def words_in(name: str) -> list[str]:
    """Return the words of a name in lower case; digits and signs part them, and so does a capital letter.

    >>> words_in("cifarTest_00-of-10"), words_in("TRAIN.2017")
    (['cifar', 'test', 'of'], ['train'])
    """
    name = re.sub(r"(?i)t10k", " test ", name)
    return re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def parts_in(name: str) -> set[str]:
    """Return the parts that the words of a name say, such as that of a file.

    >>> sorted(parts_in("mnist-Test-00000")), sorted(parts_in("latest")), sorted(parts_in("train_val"))
    (['test'], [], ['training', 'validation'])
    """
    return {part for word in words_in(name) for part, pattern in _WORDS.items() if pattern.fullmatch(word)}


def part_named(name: str) -> str:
    """Return the part that a name stands for as a whole, such as that of a folder; empty if it says anything else.

    >>> part_named("Training_Set"), part_named("val2017"), part_named("bullet_train")
    ('training', 'validation', '')
    """
    others = [word for word in words_in(name) if not any(p.fullmatch(word) for p in _WORDS.values())]
    said = parts_in(name)
    return said.pop() if len(said) == 1 and all(_BESIDE.fullmatch(word) for word in others) else ""


def is_flag(name: str, texts: Collection[str] = ()) -> bool:
    """Return whether a column says of each row if it is of a part.

    Args:
        name: its name.
        texts: its different texts, if they are known.

    >>> is_flag("is_train"), is_flag("test", ["0", "1"]), is_flag("test", ["0", "0.7"]), is_flag("bus", ["0", "1"])
    (True, True, False, False)
    """
    if "is" in words_in(name):
        return bool(parts_in(name))
    said = {text.lower() for text in texts} - {"", "none", "nan"}
    return bool(part_named(name)) and bool(said) and said.issubset(_FLAGS)


def _parts_of_folder(name: str) -> set[str]:
    """Return the parts that a folder of files says; one that is named like a file, as by Spark, says a file's.

    >>> _parts_of_folder("train"), _parts_of_folder("pets_train"), _parts_of_folder("pets_train.parquet")
    ({'training'}, set(), {'training'})
    """
    stem = re.sub(r"(?i)\.(parquet|arrow|feather|ipc)$", "", name)
    return parts_in(stem) if stem != name else {part_named(name)} - {""}


def said_by_files(uri: str, paths: Sequence[str]) -> list[str]:
    """Return the part that the name of each file says, or that of a folder below those that all files share.

    Raises:
        UserError: a name says two parts.
    """
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    said = []
    for path in paths:
        rest = path[len(shared) :].lstrip("/")
        folder, _, _ = rest.rpartition("/")
        parts = _parts_of_folder(folder) or parts_in(path.rpartition("/")[2].partition(".")[0])
        if len(parts) > 1:
            raise UserError(f"{uri}/{path} is named like {' and '.join(sorted(parts))}; rename it as one of them")
        said.append(next(iter(parts), ""))
    return said


def is_held_out(part: str) -> bool:
    """Whether a part that a name says is not trained on."""
    return part not in ("", TRAINING)


def check_folders(uri: str, paths: Sequence[str], what: str) -> None:
    """Raise UserError if files are in several folders that are not named like parts.

    Args:
        uri: the address of the dataset.
        paths: the files.
        what: what to call them.
    """
    folders = sorted({path.rpartition("/")[0] for path in paths})
    shared = os.path.commonpath(folders)
    below = [folder[len(shared) :].strip("/") for folder in folders]
    if len(folders) < 2 or all(_parts_of_folder(folder) and "/" not in folder for folder in below):
        return
    shown = ", ".join(folder or "." for folder in folders[:5])
    if any(_PARTITION.search(folder) for folder in below):
        raise UserError(
            f"dataset {uri} holds {what} partitioned by a value in the names of folders ({shown}), which is not read; "
            "write it as a column, and the files to one folder or to train/ and test/"
        )
    raise UserError(f"dataset {uri} holds {what} in several folders ({shown}); name one of them")


class GivenParts(NamedTuple):
    """What a dataset itself says about the parts of its rows.

    Attributes:
        is_test: bool [N].
        is_validation: bool [N], or None if no row is given as validation.
        notes: a sentence that says what was taken for what; empty if no name says anything.
    """

    is_test: np.ndarray
    is_validation: np.ndarray | None
    notes: tuple[str, ...]


def given_parts(uri: str, names: Sequence[str], said: Sequence[str], which: np.ndarray) -> GivenParts:
    """Decide which rows are given as validation and which as test.

    Where only one of the two is given, it is the test part.

    Args:
        uri: the address of the dataset.
        names: names of files or folders.
        said: the part that each of them says; empty for none, and then its rows are for training.
        which: int [N], the position in ``names`` for each row.

    Raises:
        UserError: there is nothing to train on, or more than two held-out parts.
    """
    parts = _evaluation_resolved(uri, [part or TRAINING for part in said])
    if TRAINING not in parts:
        held_out = " and ".join(sorted(set(parts)))
        raise UserError(f"dataset {uri} holds {held_out} files only; expected training files such as train.parquet")
    alone = VALIDATION in parts and TEST not in parts
    final = [TEST if alone and part == VALIDATION else part for part in parts]
    counts = np.bincount(which, minlength=len(names))
    taken = []
    for part in (TRAINING, VALIDATION, TEST):
        members = [i for i, other in enumerate(final) if other == part]
        if members:
            taken.append(f"{_together([names[i] for i in members])} ({counts[members].sum():,} images) as {part}")
    line = f"taken: {', '.join(taken)}"
    if alone:
        line += ", as there is no other test part"
    if drawn := [part for part in (VALIDATION, TEST) if part not in final]:
        line += f"; {' and '.join(drawn)} {'are' if len(drawn) > 1 else 'is'} drawn from training"
    notes = (line,) if any(said) else ()
    is_test, is_validation = (np.array([part == one for part in final])[which] for one in (TEST, VALIDATION))
    return GivenParts(is_test, is_validation if is_validation.any() else None, notes)


def _evaluation_resolved(uri: str, parts: Sequence[str]) -> list[str]:
    """Replace ``evaluation`` by the held-out part that no other name stands for."""
    if EVALUATION in parts and {VALIDATION, TEST} <= set(parts):
        raise UserError(f"dataset {uri} has validation, test and evaluation parts; leave out one of them")
    meant = VALIDATION if TEST in parts else TEST
    return [meant if part == EVALUATION else part for part in parts]


def _together(names: Sequence[str]) -> str:
    """Name several files or folders in few words.

    >>> _together(["train-00000.parquet", "train-00001.parquet"]), _together(["val/"]), _together(["a/", "b/"])
    ('train-*', 'val/', 'a/ and 1 more')
    """
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(list(names)).rstrip("0123456789")  # noqa: RUF071
    return f"{start}*" if start else f"{names[0]} and {len(names) - 1} more"
