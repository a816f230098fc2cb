"""Columns of images and labels in Arrow tables, as the usual tools write them.

Images are encoded bytes, or Hugging Face's ``struct<bytes, path>``. Labels are whole numbers of any type, or texts that
name the class. Names of classes are in the schema metadata: Hugging Face's ``ClassLabel`` or a JSON list ``classes``.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels, label_fault
from pfs_core.data.part_texts import may_say_parts, parts_said
from pfs_core.data.parts import MUST_BE_PARTS, PART_COLUMNS, TRAINING, is_flag, is_held_out, part_named
from pfs_core.errors import UserError

_IMAGES = ("image", "img")
_INDEX = "__index_level_"
_A_FILE_EACH = "write a file for each part, such as train.parquet and test.parquet"
_FLAG = f"{_A_FILE_EACH}, and take it out"


class Columns(NamedTuple):
    """The names of the columns of a file.

    Attributes:
        place: address of the file.
        image: the column of images.
        label: the column of labels.
        name: the column of the rows' names, if there is one.
        parts: the columns that may say parts, by their names or as they have texts; they are compared with the name of
            the file.
        unused: all columns but those of images, labels and names.
    """

    place: str
    image: str
    label: str
    name: str | None
    parts: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def of_rows(self) -> list[str]:
        """The columns to be read at once, which are small."""
        return [self.label, *([self.name] if self.name else []), *self.parts]

    def in_parquet(self, metadata: pq.FileMetaData) -> "Columns":
        """Return them without those texts that, by the statistics of a Parquet file, say no parts."""
        kept = (one for one in self.parts if _is_named_for_parts(one) or may_say_parts(metadata, one))
        return self._replace(parts=tuple(kept))


def find_columns(place: str, schema: pa.Schema, config: SplitConfig) -> Columns:
    """Find the columns of a file.

    Args:
        place: address of the file, for messages.
        schema: its columns.
        config: its ``image_column`` and ``label_column``, if they are set.

    Raises:
        UserError: a column is missing, is there twice, or holds something else.
    """
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise UserError(f"{place} has {schema.names.count(twice[0])} columns named {twice[0]!r}; keep one")
    features = _features(schema)
    image = _chosen(place, schema, "image", config.image_column, [*_IMAGES, *_of_type(features, "Image")])
    label = _chosen(place, schema, "label", config.label_column, ["label", *_of_type(features, "ClassLabel")])
    kind = schema.field(label).type
    if not (is_number(_value_type(kind)) or _is_text(_value_type(kind))):
        raise UserError(f"{place}: column {label!r} must hold whole numbers or names of classes, not {kind}")
    kind = _value_type(schema.field(image).type)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not _is_bytes(kind):
        raise UserError(f"{place}: column {image!r} must hold PNG or JPEG bytes, not {schema.field(image).type}")
    others = [column for column in schema.names if column not in (image, label)]
    for column in others:
        if is_flag(column):
            raise UserError(f"{place}: column {column!r} seems to say parts; {_FLAG}")
    name = "name" if "name" in others and _is_text(_value_type(schema.field("name").type)) else None
    texts = [column for column in others if column != name and _is_text(_value_type(schema.field(column).type))]
    saying = [column for column in others if _can_say_a_part(schema.field(column).type)]
    parts = tuple(column for column in saying if _is_named_for_parts(column) or column in texts)
    unused = tuple(column for column in others if column != name and not column.startswith(_INDEX))
    return Columns(place, image, label, name, parts, unused)


def one_image_column(files: Iterable[Columns]) -> str:
    """Return the column of images that all files have; UserError if they differ."""
    places = {columns.image: columns.place for columns in files}
    if len(places) > 1:
        (one, here), (other, there) = list(places.items())[:2]
        raise UserError(f"{here} has the images in column {one!r}, {there} in {other!r}; set split.image_column")
    return next(iter(places))


def unused_columns(files: Iterable[Columns]) -> tuple[str, ...]:
    """Say in a sentence which columns are not used; none if all are."""
    names = dict.fromkeys(name for columns in files for name in columns.unused)
    return (f"columns that are not used: {', '.join(names)}",) if names else ()


def check_parts(columns: Columns, table: pa.Table, held_out: bool) -> None:
    """Raise UserError if a column says other parts than the name of the file.

    Args:
        columns: the columns of the file.
        table: the values of those that may say parts.
        held_out: whether the file is of a part that is not trained on.
    """
    for name in columns.parts:
        values = _plain(table.column(name))
        values = values.cast(pa.large_string()) if _is_text(values.type) else values
        texts = [str(text) for text in values.unique().to_pylist()]
        if is_flag(name, texts):
            raise UserError(f"{columns.place}: column {name!r} seems to say parts; {_FLAG}")
        if _says_others(name, texts, held_out):
            raise UserError(
                f"{columns.place}: column {name!r} says parts ({', '.join(texts[:3])}), but parts are not read from "
                f"columns; {_A_FILE_EACH}"
            )


def _is_named_for_parts(column: str) -> bool:
    """Whether a column may say parts by its name: in words, or as one of yes and no such as ``test``."""
    return column.lower() in PART_COLUMNS or bool(part_named(column))


def _says_others(name: str, texts: list[str], held_out: bool) -> bool:
    """Whether the different texts of a column say other parts than the name of the file."""
    if name.lower() not in PART_COLUMNS:
        said = parts_said(texts)
        return bool(said) and (len(said) > 1 if TRAINING in said else not held_out)
    said = {part_named(text) for text in texts}
    if said == {""}:
        return name.lower() in MUST_BE_PARTS
    return len(said) > 1 or "" in said or is_held_out(*said) != held_out


def encoded(column: pa.ChunkedArray) -> list[bytes | None]:
    """Return the encoded images of a column."""
    values = column.to_pylist()
    if pa.types.is_struct(_value_type(column.type)):
        return [value and value["bytes"] for value in values]
    return values  # type: ignore[no-any-return]


def labels_of(place: str, schema: pa.Schema, name: str, column: pa.ChunkedArray, held_out: bool) -> Labels:
    """Return the labels of a file.

    Args:
        place: address of the file, for messages.
        schema: its columns.
        name: the name of the column of labels.
        column: the values of that column.
        held_out: whether the file is of a part that is not trained on.

    Raises:
        UserError: a label is missing, is a fraction, or is not among the names of the classes.
    """
    column = _plain(column)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"{place}, row {row}: the label is missing")
    names = class_names(place, schema, name)
    if not _is_text(column.type):
        return Labels(place, _whole_numbers(place, column), names, held_out)
    texts = without_zero_fractions(column.cast(pa.string()))
    for text in texts.unique().to_pylist():
        if fault := label_fault(text):
            raise UserError(f"{place}, row {texts.index(text).as_py()}: the label {fault}")
    names = names or sorted(texts.unique().to_pylist())
    codes = pc.index_in(texts, value_set=pa.array(names, pa.string()))
    if codes.null_count:
        row = codes.is_null().to_pylist().index(True)
        raise UserError(f"{place}, row {row}: class {texts[row].as_py()!r} is not named in its schema")
    return Labels(place, codes.to_numpy().astype(np.int64), names, held_out, is_text=True)


def without_zero_fractions(texts: pa.Array) -> pa.Array:
    """Return texts that are whole numbers, some of them written as ``3.0``, without fractions; others as they are."""
    if not pc.all(pc.match_substring_regex(texts, r"^-?\d+(\.0*)?$")).as_py():
        return texts
    return pc.replace_substring_regex(texts, r"\.0*$", "")


def class_names(place: str, schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names of the classes that the schema metadata has for a column of labels; None if it has none."""
    feature = _features(schema).get(label)
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return [str(name) for name in feature["names"]]
    text = (schema.metadata or {}).get(b"classes", b"")
    if not text:
        return None
    try:
        names = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError):
        names = None
    if not isinstance(names, list):
        raise UserError(f"{place}: 'classes' in the schema metadata must be a JSON list of names")
    return [str(name) for name in names]


def row_names(column: pa.ChunkedArray) -> pa.Array:
    """Return the column of rows' names as one array of strings."""
    plain = _plain(column).cast(pa.string()).combine_chunks()
    return plain.combine_chunks() if isinstance(plain, pa.ChunkedArray) else plain


def _chosen(place: str, schema: pa.Schema, what: str, setting: str | None, usual: list[str]) -> str:
    """Return the column that is set, else the first of the usual ones that exists."""
    known = [setting] if setting else list(dict.fromkeys(usual))
    found = [name for name in known if name in schema.names]
    alike = len(set(found) & set(_IMAGES)) > 1
    if found and not alike and (setting or found[0] in (*_IMAGES, "label") or len(found) == 1):
        return found[0]
    meaning = "PNG or JPEG bytes" if what == "image" else "integers from 0, or names"
    problem = f"has several columns of {what}s" if found else f"has no column {known[0]!r}"
    raise UserError(
        f"{place} {problem} ({meaning}); its columns: {', '.join(schema.names)}; name one with split.{what}_column"
    )


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return Hugging Face's description of the columns; empty if there is none."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _of_type(features: dict[str, Any], kind: str) -> list[str]:
    return [name for name, value in features.items() if isinstance(value, dict) and value.get("_type") == kind]


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _whole_numbers(place: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers of any type as int64 [n]; UserError if one is not whole."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    try:
        return np.asarray(column.cast(pa.int64()))
    except pa.ArrowInvalid:
        row, label = next((i, x) for i, x in enumerate(column.to_pylist()) if x % 1 or abs(x) >= 2**63)
        fault = label_fault(str(label)) or f"is {label}, which is no class"
        raise UserError(f"{place}, row {row}: the label {fault}") from None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a dictionary column as one of its values, those of texts as large texts: views cannot be taken."""
    if not pa.types.is_dictionary(column.type):
        return column
    kind = pa.large_string() if _is_text(column.type.value_type) else column.type.value_type
    chunks = [chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, kind)


def _can_say_a_part(kind: pa.DataType) -> bool:
    """Whether values of a type can be parts: those of a list or a structure cannot."""
    kind = _value_type(kind)
    return _is_text(kind) or is_number(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values of a type can be whole numbers, however they are stored."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
