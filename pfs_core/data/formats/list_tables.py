"""Files that may be lists of images, as tables of texts: CSV as spreadsheets write it, JSON lines and Parquet."""

import functools
import io
import json
import re
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pfs_core.data.formats.columns import is_number
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry

_DELIMITERS = ",;\t|"


class ListTable(NamedTuple):
    """A file as a table.

    Attributes:
        path: the path of the file.
        columns: the texts of each column by its name, without spaces around them.
        fault: what is wrong with it, if it is a list of images; empty for nothing.
        schema: that of a Parquet file, which may name the classes.
    """

    path: str
    columns: dict[str, pa.Array]
    fault: str
    schema: pa.Schema | None = None


def read_list(storage: Storage, entry: Entry) -> ListTable | None:
    """Read a file as a table of texts; None where it is no table or has images in it."""
    try:
        if entry.path.lower().endswith(".parquet"):
            return _from_parquet(storage, entry)
        if entry.path.lower().endswith(".jsonl"):
            return _from_json_lines(entry.path, storage.read(entry))
        return _from_text(entry.path, storage.read(entry))
    except (pa.ArrowException, OSError, KeyError):
        return None


def _from_parquet(storage: Storage, entry: Entry) -> ListTable | None:
    file = pq.ParquetFile(open_file(storage, entry))
    if any(_holds_bytes(field.type) for field in file.schema_arrow):
        return None
    names = [field.name for field in file.schema_arrow if _may_be_text(field.type)]
    return _table(entry.path, file.read(columns=names), "")._replace(schema=file.schema_arrow)


def _from_text(path: str, data: bytes) -> ListTable:
    """Read a CSV file, whatever its delimiter and its encoding are."""
    text, fault = _decoded(data)
    if excel := re.match(r"sep=(.)\r?\n", text):  # as spreadsheets write and hide it
        text = text[excel.end() :]
    head = text.partition("\n")[0]
    delimiter = "\t" if path.lower().endswith(".tsv") else max(_DELIMITERS, key=head.count)
    delimiter = excel[1] if excel else delimiter
    ragged: list[pacsv.InvalidRow] = []

    def note(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    parse = pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=note)
    data = text.encode()
    read = pacsv.ReadOptions(use_threads=False, block_size=max(1, len(data)))
    names = pacsv.read_csv(io.BytesIO(data), read, parse).column_names
    convert = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[])
    ragged.clear()
    table = pacsv.read_csv(io.BytesIO(data), read, parse, convert)
    if ragged and not fault:
        one = ragged[0]
        fault = (
            f"line {one.number} has {one.actual_columns} columns, and the first one {one.expected_columns}; "
            "texts with a delimiter in them need quotes"
        )
    return _table(path, table, fault)


def _from_json_lines(path: str, data: bytes) -> ListTable | None:
    """Read a file with a JSON object on each line; None if no line has one."""
    text, fault = _decoded(data)
    rows: list[dict[str, Any]] = []
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=note)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            fault = fault or f"line {number} is no JSON object"
        if repeated:
            fault = fault or f"line {number} has {repeated[0]!r} twice; keep one"
    if not rows:
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [pa.array([_as_text(row.get(name)) for row in rows], pa.string()) for name in names]
    return _table(path, pa.table(columns, [_as_text(name) for name in names]), fault)


def _as_text(value: Any) -> str:
    """Return a value of JSON as text: null as an empty one, and what is no single value as JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()  # JSON can write halves of characters


def _decoded(data: bytes) -> tuple[str, str]:
    """Return the text of a file, and what is wrong with its encoding."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace"), ""
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return data.decode("latin-1"), "its texts are not UTF-8; save it as UTF-8"


def _table(path: str, table: pa.Table, fault: str) -> ListTable:
    columns: dict[str, pa.Array] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name.strip() in columns:
            fault = fault or f"two of its columns are named {name.strip()!r}"
        columns[name.strip()] = _texts(column)
    return ListTable(path, _without_blank_rows(columns), fault)


def _without_blank_rows(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return columns without the rows in which all are empty, which spreadsheets write below the last one."""
    if not columns:
        return columns
    filled = [pc.greater(pc.utf8_length(texts), 0) for texts in columns.values()]
    rows = functools.reduce(pc.or_, filled)
    return {name: texts.filter(rows) for name, texts in columns.items()}


def _may_be_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        is_number(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of a column may be images."""
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return "binary" in str(kind)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as texts; an empty one for null."""
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
    texts = column.cast(pa.string()).combine_chunks()
    return pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
