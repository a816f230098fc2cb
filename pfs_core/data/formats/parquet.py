"""Parquet files with a column ``image`` (encoded bytes) and a column ``label`` (integer).

Files whose name starts with ``test`` are the test set. Hugging Face's ``struct<bytes, path>`` image columns are read
too. ``classes`` in the schema metadata (a JSON list) names the classes; an optional column ``name`` has the path of an
image before it was packed.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfs_core.data.dataset import Source, checked_classes, fingerprint
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

PARQUET = r"^[^/]*\.parquet$"
"""Pattern of the paths of the files of this format."""

_THREADS = 16


class _Rows(NamedTuple):
    """The rows of one file, without their images.

    Attributes:
        labels: int64 [n].
        groups: int32 [n], the row group of each row.
        names: the names of the rows, if the file has a column of them.
        classes: the names of the classes, if the file has them.
    """

    labels: np.ndarray
    groups: np.ndarray
    names: pa.Array | None
    classes: list[str] | None


def open_parquet(storage: Storage, files: Listing) -> Source:
    """Index the rows of all ``*.parquet`` files at the root; only labels and names are read.

    Raises:
        UserError: a file is not Parquet, a column is missing, or a label is out of range. The message names the file
            and the row, counted from 0.
    """
    if files.named("pack.json") and not files.named("complete.json"):
        raise UserError(f"{storage.uri} is a pack that was stopped; finish it with pfs pack")
    files = files.matching(PARQUET)
    if all(_is_test(entry) for entry in files):
        raise UserError(f"dataset {storage.uri} holds test files only; expected training files such as train.parquet")
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(lambda entry: _read(storage, entry), files))
    sizes = [len(part.labels) for part in parts]
    all_named = all(part.names is not None for part in parts)
    source = Source(
        uri=storage.uri,
        kind="parquet",
        files=files,
        file=np.repeat(np.arange(len(files), dtype=np.int32), sizes),
        group=np.concatenate([part.groups for part in parts]),
        row=np.concatenate([np.arange(size) for size in sizes]),
        labels=np.concatenate([part.labels for part in parts]),
        is_test=np.repeat([_is_test(entry) for entry in files], sizes),
        names=pa.concat_arrays([part.names for part in parts]) if all_named else None,
        class_names=next((part.classes for part in parts if part.classes), []),
        flip=True,
        fingerprint=fingerprint(storage, files),
    )
    return _with_classes(source)


def open_file_of(storage: Storage, entry: Entry) -> pq.ParquetFile:
    """Open a Parquet file of a dataset; UserError if it is not one."""
    try:
        return pq.ParquetFile(open_file(storage, entry), page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{storage.uri}/{entry.path} is not a Parquet file: {str(e).splitlines()[0]}") from None


def encoded_images(storage: Storage, entry: Entry, file: pq.ParquetFile, group: int) -> list[bytes | None]:
    """Read the encoded images of a row group, and verify the checksums of its pages if the file has them.

    Raises:
        UserError: the row group is damaged or cannot be read.
    """
    try:
        column = file.read_row_group(group, columns=["image"]).column("image")
    except (pa.ArrowInvalid, OSError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"{storage.uri}/{entry.path}, row group {group} cannot be read: {reason}") from None
    values = column.to_pylist()
    return [value and value["bytes"] for value in values] if pa.types.is_struct(column.type) else values


def _is_test(entry: Entry) -> bool:
    return entry.path.startswith("test")


def _read(storage: Storage, entry: Entry) -> _Rows:
    name = f"{storage.uri}/{entry.path}"
    file = open_file_of(storage, entry)
    schema = file.schema_arrow
    for column, meaning in (("image", "PNG or JPEG bytes"), ("label", "integers from 0")):
        if column not in schema.names:
            raise UserError(f"{name} has no column {column!r} ({meaning}); its columns: {', '.join(schema.names)}")
    if not pa.types.is_integer(schema.field("label").type):
        raise UserError(f"{name}: column 'label' must hold integers, not {schema.field('label').type}")
    image = schema.field("image").type
    if not (_is_bytes(image) or (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0)):
        raise UserError(f"{name}: column 'image' must hold PNG or JPEG bytes, not {image}")
    has_names = schema.get_field_index("name") >= 0
    columns = ["label", "name"] if has_names else ["label"]
    try:
        table = file.read(columns=columns)
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{name} cannot be read: {str(e).splitlines()[0]}") from None
    if not len(table):
        raise UserError(f"{name} holds no rows")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    groups = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    names = table.column("name").combine_chunks().cast(pa.string()) if has_names else None
    return _Rows(_labels(name, table.column("label")), groups, names, _class_names(name, schema))


def _is_bytes(kind: pa.DataType) -> bool:
    answer: bool = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return answer


def _labels(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"{name}, row {row}: the label is missing")
    labels = column.to_numpy().astype(np.int64)
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise UserError(f"{name}, row {row}: label {labels[row]} is out of range; labels count from 0")
    result: np.ndarray = labels
    return result


def _class_names(name: str, schema: pa.Schema) -> list[str] | None:
    text = (schema.metadata or {}).get(b"classes", b"")
    if not text:
        return None
    try:
        names = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError):
        names = None
    if not isinstance(names, list):
        raise UserError(f"{name}: 'classes' in the schema metadata must be a JSON list of names")
    return [str(name) for name in names]


def _with_classes(source: Source) -> Source:
    """Check the labels of ``source`` against its classes, and name the classes by their labels if it has no names.

    Raises:
        UserError: a label is out of range, or there is a single class.
    """
    names = source.class_names
    if not names:
        # Without names, a gap in the labels is more likely a mistake in them than a class without images.
        seen = np.unique(source.labels[~source.is_test])
        count = int(np.cumprod(seen == np.arange(len(seen))).sum())
        names = [str(i) for i in range(count)]
    bad = np.flatnonzero(source.labels >= len(names))
    if len(bad):
        known = "are named in its schema" if source.class_names else "occur in the training files without a gap"
        raise UserError(
            f"{source.place(bad[0])}: label {source.labels[bad[0]]} is out of range; {len(names)} classes {known}, "
            f"so labels are 0 to {len(names) - 1}"
        )
    return replace(source, class_names=checked_classes(names, source.uri))
