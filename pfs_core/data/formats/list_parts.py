"""Which part each row of a list is of: a column says it, the name of the list, or the folders of the images."""

import os
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.part_texts import parts_said
from pfs_core.data.parts import MUST_BE_PARTS, PART_COLUMNS, TRAINING, is_flag, part_named, parts_in
from pfs_core.errors import UserError

_WRITE = "write a column split with train, validation and test"


def part_column(place: str, columns: Mapping[str, pa.Array], labels: list[str]) -> str | None:
    """Return the column that says parts, if there is one: by its name, else by its texts.

    Args:
        place: address of the list, for messages.
        columns: its columns but that of paths.
        labels: those of them that have labels by their names.

    Raises:
        UserError: a column says something else beside parts, or several say different ones.
    """
    said: dict[str, list[str]] = {}
    for name, texts in columns.items():
        if name.lower() not in PART_COLUMNS or not len(texts):
            continue
        parts = [part_named(text) for text in texts.to_pylist()]
        if all(parts):
            said[name] = parts
        elif any(parts) or name.lower() in MUST_BE_PARTS:
            row = parts.index("")
            raise UserError(
                f"{place}, row {row}: {name!r} is {texts[row].as_py()!r}, which is no part; "
                "write train, validation or test, and take out rows of no part"
            )
    if said:
        return _agreed(place, said)
    others = {name: texts for name, texts in columns.items() if name not in labels}
    for name, texts in columns.items():
        if is_flag(name, texts.unique().to_pylist() if name in others else ()):
            raise UserError(f"{place}: column {name!r} seems to say parts; {_WRITE}, or take it out")
    return _by_texts(place, others)


def _agreed(place: str, said: Mapping[str, list[str]]) -> str:
    """Return the first of the columns that say parts; UserError if another one says others."""
    (first, parts), *others = said.items()
    for name, other in others:
        row = next((i for i, (one, two) in enumerate(zip(parts, other, strict=True)) if one != two), None)
        if row is not None:
            raise UserError(
                f"{place}, row {row}: {first!r} says {parts[row]} and {name!r} says {other[row]}; "
                "keep the column that says the parts, and take out the other"
            )
    return first


def part_of_list(path: str) -> str:
    """Return the part that the folders or the name of a list say; empty for none."""
    folder, _, name = path.rpartition("/")
    said = {part_named(one) for one in folder.split("/")} - {""} or parts_in(name.rpartition(".")[0])
    return said.pop() if len(said) == 1 else ""


def parts_of_rows(
    place: str, path: str, columns: Mapping[str, pa.Array], column: str | None, images: pa.Array
) -> tuple[list[str], str]:
    """Return the part of each row, and what says it in words.

    Args:
        place: address of the list, for messages.
        path: its path.
        columns: its columns.
        column: the one that says parts, if there is one.
        images: the paths of the images.

    Raises:
        UserError: some images are in folders named like parts and others are not.
    """
    if column:
        return [part_named(text) for text in columns[column].to_pylist()], f", parts in {column!r}"
    if part := part_of_list(path):
        return [part] * len(images), ""
    folders = pc.replace_substring_regex(images, r"[^/]*$", "").dictionary_encode()
    parts = _said_by_folders(place, folders.dictionary.to_pylist())
    return [parts[i] for i in folders.indices.to_pylist()], ", parts by folders" if any(parts) else ""


def _by_texts(place: str, columns: Mapping[str, pa.Array]) -> str | None:
    """Return the column whose texts all say parts, two at least, whatever it is called."""
    texts = {name: column.unique().to_pylist() for name, column in columns.items()}
    found = [name for name in columns if TRAINING in (said := parts_said(texts[name])) and len(said) > 1]
    for name in found:
        same = columns[name].equals(columns[found[0]])
        if not same or not all(part_named(text) for text in texts[name]):
            raise UserError(f"{place}: column {name!r} seems to say parts ({', '.join(texts[name][:3])}); {_WRITE}")
    return found[0] if found else None


def _said_by_folders(place: str, folders: list[str]) -> list[str]:
    """Return the part that the first folder below those that all images share says; empty for none."""
    shared = os.path.commonpath([f"/{folder}" for folder in folders])
    firsts = [f"/{folder}"[len(shared) :].strip("/").partition("/")[0] for folder in folders]
    parts = [part_named(first) for first in firsts]
    if all(parts) or TRAINING not in parts or len({*parts} - {""}) < 2:
        return parts if all(parts) else [""] * len(parts)
    other = firsts[parts.index("")]
    raise UserError(
        f"{place} names images in folders named like parts and in {f'{other}/' if other else 'others'}; {_WRITE}"
    )
