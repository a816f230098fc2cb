"""Which column of a list has the labels, and whether its texts can be labels."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.classes import label_fault
from pfs_core.data.formats.columns import class_names, is_number
from pfs_core.errors import UserError

_LABELS = ("label", "labels", "class", "classname", "classid", "category", "target", "species", "breed")
_CAPTIONS = ("text", "caption", "captions", "prompt", "description")
_MARKS = (r"\s*[|;,]\s*", r"\s+")
"""What may be between several labels, each of which is that of another image too."""


def named_labels(columns: Iterable[str], setting: str | None) -> list[str]:
    """Return the columns that a name says to have labels: the one that is set, else those of usual names."""
    if setting:
        return [name for name in columns if name == setting]
    return [name for name in columns if re.sub(r"[\s_-]", "", name.lower()) in _LABELS]


def label_column(place: str, columns: Mapping[str, pa.Array], setting: str | None) -> str | None:
    """Return the column of labels: the one that is set, the one of a usual name, or the only one; None without one.

    Args:
        place: address of the list, for messages.
        columns: its columns but those of paths and parts.
        setting: the one that is set.

    Raises:
        UserError: several could be meant.
    """
    named = named_labels(columns, setting)
    guessed = [name for name, texts in columns.items() if not is_index(name) and not _are_captions(name, texts)]
    candidates = named if named or setting else guessed
    if not candidates:
        return None
    if len(candidates) == 1 or (named and all(_same(columns[named[0]], columns[name]) for name in named[1:])):
        in_words = [name for name in candidates if not _are_numbers(columns[name].unique().to_pylist())]
        return (in_words or candidates)[0]
    listed = ", ".join(candidates)
    if not named and _are_of_classes([columns[name] for name in candidates]):
        raise UserError(
            f"{place} has a column of 0 and 1 for each class ({listed}); write one column label with their names"
        )
    raise UserError(
        f"{place} names images, but which of its other columns has the labels ({listed})? "
        "Name it with split.label_column"
    )


def check_labels(place: str, texts: pa.Array) -> None:
    """Raise UserError if a label is missing, stands for none or for several."""
    found = texts.unique().to_pylist()
    known = set(found)
    whole = all(re.fullmatch(r"-?\d+", text) for text in found)
    for text in found:
        row = texts.index(text).as_py()
        if fault := label_fault(text):
            raise UserError(f"{place}, row {row}: the label {fault}")
        if whole and "0" in found and text.startswith("-"):
            raise UserError(f"{place}, row {row}: label {text} is out of range; labels count from 0")
        if any(len(several := re.split(mark, text)) > 1 and known.issuperset(several) for mark in _MARKS):
            raise UserError(f"{place}, row {row}: {text!r} is several labels; an image may have one")


def names_by_label(place: str, schema: pa.Schema, label: str, texts: pa.Array) -> dict[str, str] | None:
    """Return the name of each class by the text of its label, as the schema of a Parquet file has them.

    Args:
        place: address of the list, for messages.
        schema: its columns.
        label: the one of labels: numbers, or the names themselves.
        texts: its values.

    Returns:
        The names in the order of the classes; None if the schema has none.

    Raises:
        UserError: a label has no name.
    """
    names = class_names(place, schema, label)
    if names is None:
        return None
    kind = schema.field(label).type if label in schema.names else pa.string()
    numbers = is_number(kind.value_type if pa.types.is_dictionary(kind) else kind)
    found = {str(i): name for i, name in enumerate(names)} if numbers else {name: name for name in names}
    for text in texts.unique().to_pylist():
        if text not in found:
            what = f"label {text} is out of range; {len(names)} classes are" if numbers else f"class {text!r} is not"
            raise UserError(f"{place}, row {texts.index(text).as_py()}: {what} named in its schema")
    return found


def is_index(name: str) -> bool:
    """Whether a column is the numbers of rows that pandas writes."""
    return not name or name.startswith(("Unnamed:", "__index_level_"))


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Whether two columns of labels make the same classes."""
    pairs = pa.table({"one": one, "other": other}).group_by(["one", "other"]).aggregate([])
    return bool(len(pairs) == pc.count_distinct(one).as_py() == pc.count_distinct(other).as_py())


def _are_of_classes(columns: Sequence[pa.Array]) -> bool:
    """Whether of several columns exactly one says 1 in each row and the others 0."""
    ones = [pc.is_in(texts, value_set=pa.array(["1", "1.0"])) for texts in columns]
    known = [pc.is_in(texts, value_set=pa.array(["0", "0.0", "1", "1.0"])) for texts in columns]
    count = functools.reduce(pc.add, [one.cast(pa.int32()) for one in ones])
    return all(pc.all(one).as_py() for one in known) and bool(pc.all(pc.equal(count, 1)).as_py())


def _are_numbers(texts: Sequence[str]) -> bool:
    return all(text.isdecimal() for text in texts)


def _are_captions(name: str, texts: pa.Array) -> bool:
    """Whether a column describes each image in words of its own."""
    return name.lower() in _CAPTIONS and pc.count_distinct(texts).as_py() * 2 > len(texts)
