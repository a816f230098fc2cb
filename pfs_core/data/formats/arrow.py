"""Arrow files: those of Hugging Face's ``save_to_disk``, and Feather or IPC files as pandas and polars write them.

The first are bare streams with ``state.json`` beside them; a ``DatasetDict`` is a folder of such folders, which are
named like parts, with ``dataset_dict.json``. The others begin with a magic number and end with an index.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    unused_columns,
)
from pfs_core.data.formats.several_files import read_files
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import check_folders
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

ARROW = r"(?i)\.(arrow|feather|ipc)$"
"""Pattern of the paths of the files of this format."""

_ABOUT = r"(^|/)(state|dataset_info|dataset_dict)\.json$"
_STATE = r"(^|/)state\.json$"
_CACHE = r"(^|/)cache-[^/]*\.arrow$"
_REPEATS = "a cache of Hugging Face's map or filter, which repeats rows"
_MAGIC = b"ARROW1\0\0"
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of a stream; every part of it begins as these do."""


class ArrowFile:
    """A file whose record batches are read one at a time.

    Args:
        storage: the dataset.
        entry: the file in it.

    Raises:
        pyarrow.ArrowException, OSError, EOFError: it is no Arrow file.
    """

    def __init__(self, storage: Storage, entry: Entry) -> None:
        self._storage, self._entry = storage, entry
        self._file = pa.PythonFile(open_file(storage, entry), mode="r")
        indexed = self._file.read(len(_MAGIC)) == _MAGIC
        self._file.seek(0)
        self._indexed = pa.ipc.open_file(self._file) if indexed else None
        self.schema: pa.Schema = self._indexed.schema if self._indexed else pa.ipc.read_schema(self._file)

    def batches(self) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Yield every record batch, with the place of its bytes in the file and their number; 0 and 0 in an index.

        In a stream these are the bytes of the dictionaries too that come before it.
        """
        if self._indexed:
            for number in range(self._indexed.num_record_batches):
                yield self._indexed.get_batch(number), 0, 0
            return
        self._file.seek(0)
        stream = pa.ipc.open_stream(self._file)
        while True:
            start = self._file.tell()
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                self._check_end()
                return
            yield batch, start, self._file.tell() - start

    def _check_end(self) -> None:
        """Raise EOFError unless the mark of the end is where a stream ended; one that is cut short may end there, too.

        Files from before 2019 begin and end otherwise.
        """
        end = self._file.tell()
        self._file.seek(0)
        if self._file.read(4) == _END[:4]:
            self._file.seek(end - len(_END))
            if self._file.read(len(_END)) != _END:
                raise EOFError("it is cut short; make or download it again")

    def images(self, number: int, start: int, size: int, column: str) -> list[bytes | None]:
        """Return the encoded images of a record batch.

        Args:
            number: which one it is, counted from 0.
            start: the place of its bytes in the file, as :meth:`batches` says.
            size: their number.
            column: the name of the column of images.
        """
        if self._indexed:
            batch = self._indexed.get_batch(number)
        else:
            messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(self._storage.read(self._entry, start, size)))
            message = next(one for one in messages if one.type == "record batch")
            batch = pa.ipc.read_record_batch(message, _without_dictionaries(self.schema))
        return encoded(pa.chunked_array([batch.column(column)]))

    def check_images(self, column: str) -> None:
        """Raise UserError if images need a dictionary of a stream, which is not at hand where they are read."""
        if self._indexed:
            return
        for field in self.schema:
            outermost = pa.types.is_dictionary(field.type) and field.name != column
            if "dictionary<" in str(field.type) and not outermost:
                place = f"{self._storage.uri}/{self._entry.path}"
                raise UserError(
                    f"{place}: column {field.name!r} of a stream holds images or lists by a dictionary, which is not "
                    "read; write a Feather or Parquet file"
                )


def _without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """Return a schema by which record batches can be read alone, their dictionary columns as positions."""
    return pa.schema(
        field.with_type(field.type.index_type) if pa.types.is_dictionary(field.type) else field for field in schema
    )


class _Rows(NamedTuple):
    """The rows of a file; of its record batches the number of rows, the place in the file and the bytes."""

    labels: Labels
    columns: Columns
    rows: list[int]
    offsets: list[int]
    sizes: list[int]


def open_arrow(storage: Storage, files: Listing, config: SplitConfig) -> Source:
    """Index the rows of all Arrow files.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which columns have the images and the labels.

    Raises:
        UserError: a file is not Arrow's, a column is missing, or a label is out of range.
    """
    caches = files.matching(_CACHE)
    streams = _data_files(storage, files)
    paths = streams.paths.to_pylist()
    check_folders(storage.uri, paths, "Arrow files")
    rows = read_files(storage.uri, streams, lambda entry, held_out: _scan(storage, entry, held_out, config))
    found = rows.found
    columns = [one.columns for one in found]
    about = files.matching(_ABOUT).paths.to_pylist()
    return Source(
        uri=storage.uri,
        kind="arrow",
        files=rows.files,
        file=rows.file,
        group=np.concatenate([np.repeat(np.arange(len(one.rows), dtype=np.int32), one.rows) for one in found]),
        row=np.concatenate([np.arange(count) for one in found for count in one.rows]),
        labels=rows.classes.labels,
        is_test=rows.parts.is_test,
        names=None,
        class_names=checked_classes(rows.classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(fingerprint(storage, rows.files), config),
        is_validation=rows.parts.is_validation,
        notes=rows.notes + unused_columns(columns),
        left_out=left_out(files, [*paths, *about, *caches.paths.to_pylist()])
        + left_out(caches, [], _REPEATS, always=True)
        + rows.left_out,
        image_column=one_image_column(columns),
        offset=np.concatenate([np.repeat(np.array(one.offsets, dtype=np.int64), one.rows) for one in found]),
        size=np.concatenate([np.repeat(np.array(one.sizes, dtype=np.int64), one.rows) for one in found]),
    )


def _data_files(storage: Storage, files: Listing) -> Listing:
    """Return the files that ``state.json`` names; where there is none, all but those of a cache.

    Raises:
        UserError: a ``state.json`` is broken, a file that it names is missing, or there are files of a cache only.
    """
    named: list[str] = []
    for entry in files.matching(_STATE):
        folder = entry.path.removesuffix("state.json")
        try:
            named += [f"{folder}{file['filename']}" for file in json.loads(storage.read(entry))["_data_files"]]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{storage.uri}/{entry.path} does not name data files, as save_to_disk writes it") from None
    arrow = files.matching(ARROW)
    found = files.named(*named) if named else arrow.filter(pc.invert(pc.match_substring_regex(arrow.paths, _CACHE)))
    missing = sorted(set(named) - set(found.paths.to_pylist()))
    if arrow and not found and not named:
        raise UserError(
            f"dataset {storage.uri} holds no Arrow file but {arrow[0].path}, {_REPEATS}; write them by save_to_disk"
        )
    if missing or not found:
        raise UserError(f"{storage.uri}/{missing[0] if missing else 'data-00000-of-00001.arrow'} is missing")
    return found


def _scan(storage: Storage, entry: Entry, held_out: bool, config: SplitConfig) -> _Rows | None:
    """Read a file once: its labels, and where its record batches are; None if it has no rows."""
    place = f"{storage.uri}/{entry.path}"
    columns: Columns | None = None
    batches, rows, offsets, sizes = [], [], [], []
    try:
        opened = ArrowFile(storage, entry)
        for batch, start, size in opened.batches():
            if len(batch):
                columns = columns or find_columns(place, opened.schema, config)
                batches.append(batch.select(columns.of_rows))
            rows.append(len(batch))
            offsets.append(start)
            sizes.append(size)
    except (pa.ArrowException, OSError, EOFError) as e:
        raise UserError(f"{place} is no whole Arrow file: {str(e).splitlines()[0]}") from None
    if columns is None:
        return None
    opened.check_images(columns.image)
    table = pa.Table.from_batches(batches)
    check_parts(columns, table, held_out)
    labels = labels_of(place, opened.schema, columns.label, table.column(columns.label), held_out)
    return _Rows(labels, columns, rows, offsets, sizes)
