"""Parquet files with a column of encoded images and a column of labels (:mod:`pfs_core.data.formats.columns`).

They lie at the root, or in one folder below it as on the Hugging Face Hub. Names of files, or of the folders that they
are in, say which part they are. An optional column ``name`` has the path of an image before it was packed.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels
from pfs_core.data.dataset import Source, checked_classes, column_fingerprint, fingerprint
from pfs_core.data.formats.columns import (
    Columns,
    check_parts,
    encoded,
    find_columns,
    labels_of,
    one_image_column,
    row_names,
    unused_columns,
)
from pfs_core.data.formats.several_files import read_files
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import check_folders
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

PARQUET = r"(?i)\.parquet$"
"""Pattern of the paths of the files of this format."""
AT_ROOT = r"(?i)^[^/]*\.parquet$"
"""Pattern of those that lie at the root."""

_OWN = ("pack.json", "complete.json")


class _Rows(NamedTuple):
    """The rows of one file, without their images.

    Attributes:
        labels: their labels.
        groups: int32 [n], the row group of each row.
        names: the names of the rows, if the file has a column of them.
        columns: its columns.
    """

    labels: Labels
    groups: np.ndarray
    names: pa.Array | None
    columns: Columns


def open_parquet(storage: Storage, files: Listing, config: SplitConfig) -> Source:
    """Index the rows of all ``*.parquet`` files; only labels and names are read.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which columns have the images and the labels.

    Raises:
        UserError: a file is not Parquet, a column is missing, or a label is out of range. The message names the file
            and the row, counted from 0.
    """
    if files.named("pack.json") and not files.named("complete.json"):
        raise UserError(f"{storage.uri} is a pack that was stopped; finish it with pfs pack")
    shards = _shards(storage.uri, files)
    rows = read_files(storage.uri, shards, lambda entry, held_out: _read(storage, entry, held_out, config))
    columns = [one.columns for one in rows.found]
    all_named = all(one.names is not None for one in rows.found)
    return Source(
        uri=storage.uri,
        kind="parquet",
        files=shards,
        file=rows.file,
        group=np.concatenate([one.groups for one in rows.found]),
        row=np.concatenate([np.arange(count) for count in rows.counts]),
        labels=rows.classes.labels,
        is_test=rows.parts.is_test,
        names=pa.concat_arrays([one.names for one in rows.found]) if all_named else None,
        class_names=checked_classes(rows.classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(fingerprint(storage, shards), config),
        is_validation=rows.parts.is_validation,
        notes=rows.notes + unused_columns(columns),
        left_out=left_out(files, [*shards.paths.to_pylist(), *_OWN]),
        image_column=one_image_column(columns),
    )


def open_file_of(storage: Storage, entry: Entry) -> pq.ParquetFile:
    """Open a Parquet file of a dataset; UserError if it is not one."""
    try:
        return pq.ParquetFile(open_file(storage, entry), page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{storage.uri}/{entry.path} is not a Parquet file: {str(e).splitlines()[0]}") from None


def encoded_images(storage: Storage, entry: Entry, file: pq.ParquetFile, group: int, image: str) -> list[bytes | None]:
    """Read the encoded images of a row group, and verify the checksums of its pages if the file has them.

    Raises:
        UserError: the row group is damaged or cannot be read.
    """
    try:
        return encoded(file.read_row_group(group, columns=[image]).column(image))
    except (pa.ArrowException, OSError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"{storage.uri}/{entry.path}, row group {group} cannot be read: {reason}") from None


def _shards(uri: str, files: Listing) -> Listing:
    """Return the files to read, which are in one folder or in folders named like parts."""
    found = files.matching(PARQUET)
    check_folders(uri, found.paths.to_pylist(), "Parquet files")
    return found


def _read(storage: Storage, entry: Entry, held_out: bool, config: SplitConfig) -> _Rows:
    place = f"{storage.uri}/{entry.path}"
    file = open_file_of(storage, entry)
    schema = file.schema_arrow
    columns = find_columns(place, schema, config).in_parquet(file.metadata)
    try:
        table = file.read(columns=columns.of_rows)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"{place} cannot be read: {str(e).splitlines()[0]}") from None
    if not len(table):
        raise UserError(f"{place} holds no rows")
    check_parts(columns, table, held_out)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return _Rows(
        labels_of(place, schema, columns.label, table.column(columns.label), held_out),
        np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        row_names(table.column(columns.name)) if columns.name else None,
        columns,
    )
