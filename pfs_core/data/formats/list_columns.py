"""Which columns of a list have the paths, the labels and the parts; what could be meant in two ways is refused."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import label_fault
from pfs_core.data.formats.list_paths import ImageNames, Named
from pfs_core.data.formats.list_tables import ListTable
from pfs_core.data.parts import MUST_BE_PARTS, PART_COLUMNS, TRAINING, is_flag, part_named, parts_in
from pfs_core.errors import UserError

_LABELS = ("label", "labels", "class", "class_name", "classname", "class_id", "category", "target", "species", "breed")
_CAPTIONS = ("text", "caption", "captions", "prompt", "description")


class Listed(NamedTuple):
    """A list: for each of its rows the position of the image, the label as text and the part.

    Attributes:
        path: the path of the list.
        images: int64 [n].
        labels: n texts.
        parts: n parts, empty where none is said.
        columns: which columns were taken for what, in words.
    """

    path: str
    images: np.ndarray
    labels: pa.Array
    parts: list[str]
    columns: str


def listed_in(uri: str, table: ListTable, images: ImageNames, config: SplitConfig) -> Listed | None:
    """Find the columns of a list; None if no column names images, or there are no labels.

    Args:
        uri: the address of the dataset.
        table: the file.
        images: the images of the dataset.
        config: which columns have the paths and the labels.

    Raises:
        UserError: a path is that of no image, a label is missing, or a column could be meant in two ways.
    """
    place = f"{uri}/{table.path}"
    image = _image_column(place, table, images, config.image_column)
    if image is None:
        return None
    name, rows = image
    part = _part_column(place, {other: texts for other, texts in table.columns.items() if other != name})
    others = [other for other in table.columns if other not in (name, part)]
    label = _label_column(place, table.columns, others, config.label_column)
    if label is None:
        return None
    if table.fault:
        raise UserError(f"{place}: {table.fault}")
    texts = table.columns[label]
    _check_labels(place, texts)
    unused = [other for other in others if other != label and not _is_index(other)]
    also = f"; not used: {', '.join(unused)}" if unused else ""
    parts, by = _parts(place, table, part, images.paths.take(pa.array(rows)))
    return Listed(table.path, images.rows[rows], texts, parts, f"paths in {name!r}, labels in {label!r}{by}{also}")


def _image_column(
    place: str, table: ListTable, images: ImageNames, setting: str | None
) -> tuple[str, np.ndarray] | None:
    """Return the column that names images, and the position of each: the one whose texts say most."""
    known = [name for name in table.columns if (name == setting if setting else not _is_index(name))]
    found = {name: named for name in known if (named := images.find(table.columns[name])) is not None}
    if not found:
        if known and setting and len(table.columns[setting]):
            raise UserError(f"{place}, row 0: there is no image {table.columns[setting][0].as_py()!r}")
        return None
    whole = {name: named for name, named in found.items() if named.all_found}
    if not whole:
        name, named = max(found.items(), key=lambda item: (item[1].images >= 0).mean())
        if not (setting or named.sure or (named.images >= 0).mean() > 0.5):
            return None
        row = int(np.flatnonzero(named.images < 0)[0])
        raise UserError(f"{place}, row {row}: there is no image {table.columns[name][row].as_py()!r}")
    name, named = _most_said(place, whole)
    if named.several is not None:
        raise UserError(
            f"{place}, row {named.several}: several images are called {table.columns[name][named.several].as_py()!r}; "
            "write their paths below the dataset"
        )
    header = images.find(pa.array([name], pa.string()))
    if header is not None and header.images[0] not in named.images:
        raise UserError(f"{place} begins with an image ({name!r}); put the names of the columns first: path,label")
    return name, named.images


def _most_said(place: str, found: dict[str, Named]) -> tuple[str, Named]:
    """Return the column whose texts say most of their images; those of which one is named twice come last."""
    rank = {name: (len(np.unique(one.images)) < len(one.images), one.level) for name, one in found.items()}
    best = min(rank.values())
    (name, named), *others = [(name, one) for name, one in found.items() if rank[name] == best]
    for other, one in others:
        if (one.images != named.images).any():
            raise UserError(
                f"{place}: columns {name!r} and {other!r} name different images; set split.image_column to one of them"
            )
    return name, named


def _part_column(place: str, columns: dict[str, pa.Array]) -> str | None:
    """Return the column that says parts, if there is one."""
    for name, texts in columns.items():
        if name.lower() not in PART_COLUMNS or not len(texts):
            continue
        is_part = [bool(part_named(text)) for text in texts.to_pylist()]
        if all(is_part):
            return name
        if any(is_part) or name.lower() in MUST_BE_PARTS:
            row = is_part.index(False)
            raise UserError(
                f"{place}, row {row}: {name!r} is {texts[row].as_py()!r}, which is no part; "
                "write train, validation or test, and take out rows of no part"
            )
    for name in columns:
        if is_flag(name):
            raise UserError(
                f"{place}: column {name!r} seems to say parts; write a column split with train, validation and test"
            )
    return None


def _parts(place: str, table: ListTable, column: str | None, paths: pa.Array) -> tuple[list[str], str]:
    """Return the part of each row and what says it: a column, the name or folder of the list, or the folders."""
    if column:
        return [part_named(text) for text in table.columns[column].to_pylist()], f", parts in {column!r}"
    folder, _, name = table.path.rpartition("/")
    said = {part_named(one) for one in folder.split("/")} - {""} or parts_in(name.rpartition(".")[0])
    if len(said) == 1:
        return [said.pop()] * len(paths), ""
    folders = pc.replace_substring_regex(paths, r"[^/]*$", "").dictionary_encode()
    parts = _said_by_folders(place, folders.dictionary.to_pylist())
    return [parts[i] for i in folders.indices.to_pylist()], ", parts by folders" if any(parts) else ""


def _said_by_folders(place: str, folders: list[str]) -> list[str]:
    """Return the part that the first folder below those that all images share says; empty for none."""
    shared = os.path.commonpath([f"/{folder}" for folder in folders])
    firsts = [f"/{folder}"[len(shared) :].strip("/").partition("/")[0] for folder in folders]
    parts = [part_named(first) for first in firsts]
    if all(parts) or TRAINING not in parts or len({*parts} - {""}) < 2:
        return parts if all(parts) else [""] * len(parts)
    other = firsts[parts.index("")]
    raise UserError(
        f"{place} names images in folders named like parts and in {f'{other}/' if other else 'others'}; "
        "write a column split with train, validation and test"
    )


def _label_column(place: str, columns: dict[str, pa.Array], others: list[str], setting: str | None) -> str | None:
    """Return the column of labels: the one that is set, the one of a usual name, or the only one."""
    if setting:
        return setting if setting in others else None
    usual = [name for name in others if name.lower() in _LABELS]
    candidates = usual or [name for name in others if not _is_index(name) and not _are_captions(name, columns[name])]
    if not candidates:
        return None
    if len(candidates) == 1 or (usual and all(_same(columns[usual[0]], columns[name]) for name in usual[1:])):
        named = [name for name in candidates if not _are_numbers(columns[name].unique().to_pylist())]
        return (named or candidates)[0]
    raise UserError(
        f"{place} names images, but which of its other columns has the labels ({', '.join(candidates)})? "
        "Name it with split.label_column"
    )


def _check_labels(place: str, texts: pa.Array) -> None:
    """Raise UserError if a label is missing, stands for none or for several."""
    found = texts.unique().to_pylist()
    whole = all(re.fullmatch(r"-?\d+", text) for text in found)
    several = {text for text in found if len(both := re.split(r"\s*[|;,]\s*", text)) > 1 and set(both) <= set(found)}
    for text in found:
        row = texts.index(text).as_py()
        if fault := label_fault(text):
            raise UserError(f"{place}, row {row}: the label {fault}")
        if whole and "0" in found and text.startswith("-"):
            raise UserError(f"{place}, row {row}: label {text} is out of range; labels count from 0")
        if text in several:
            raise UserError(f"{place}, row {row}: {text!r} is several labels; an image may have one")


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Whether two columns of labels make the same classes."""
    pairs = pa.table({"one": one, "other": other}).group_by(["one", "other"]).aggregate([])
    return bool(len(pairs) == pc.count_distinct(one).as_py() == pc.count_distinct(other).as_py())


def _are_numbers(texts: Sequence[str]) -> bool:
    return all(text.isdecimal() for text in texts)


def _are_captions(name: str, texts: pa.Array) -> bool:
    """Whether a column describes each image in words of its own."""
    return name.lower() in _CAPTIONS and pc.count_distinct(texts).as_py() * 2 > len(texts)


def _is_index(name: str) -> bool:
    """Whether a column is the numbers of rows that pandas writes."""
    return not name or name.startswith(("Unnamed:", "__index_level_"))
