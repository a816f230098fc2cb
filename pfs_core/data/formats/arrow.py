"""Hugging Face datasets as ``save_to_disk`` writes them: folders of Arrow streams, with ``state.json`` beside them.

A ``DatasetDict`` is a folder of such folders, which are named like parts, with ``dataset_dict.json``.
"""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels
from pfs_core.data.dataset import Source, checked_classes, column_fingerprint, fingerprint
from pfs_core.data.formats.columns import encoded, find_columns, labels_of
from pfs_core.data.formats.several_files import read_files
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import check_folders
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

ARROW = r"\.arrow$"
"""Pattern of the paths of the files of this format."""

_ABOUT = r"(^|/)(state|dataset_info|dataset_dict)\.json$"
_STATE = r"(^|/)state\.json$"


class _Stream(NamedTuple):
    """The rows of a stream; of its record batches the number of rows, the place in the file and the bytes."""

    labels: Labels
    image: str
    rows: list[int]
    offsets: list[int]
    sizes: list[int]


def open_arrow(storage: Storage, files: Listing, config: SplitConfig) -> Source:
    """Index the rows of all Arrow streams.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which columns have the images and the labels.

    Raises:
        UserError: a file is no Arrow stream, a column is missing, or a label is out of range.
    """
    streams = _data_files(storage, files)
    paths = streams.paths.to_pylist()
    check_folders(storage.uri, paths, "Arrow files")
    rows = read_files(storage.uri, streams, lambda entry, held_out: _scan(storage, entry, held_out, config))
    found = rows.found
    about = files.matching(_ABOUT).paths.to_pylist()
    return Source(
        uri=storage.uri,
        kind="arrow",
        files=streams,
        file=rows.file,
        group=np.concatenate([np.repeat(np.arange(len(one.rows), dtype=np.int32), one.rows) for one in found]),
        row=np.concatenate([np.arange(count) for one in found for count in one.rows]),
        labels=rows.classes.labels,
        is_test=rows.parts.is_test,
        names=None,
        class_names=checked_classes(rows.classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(fingerprint(storage, streams), config),
        is_validation=rows.parts.is_validation,
        notes=rows.notes,
        left_out=left_out(files, [*paths, *about]),
        image_column=found[0].image,
        offset=np.concatenate([np.repeat(np.array(one.offsets, dtype=np.int64), one.rows) for one in found]),
        size=np.concatenate([np.repeat(np.array(one.sizes, dtype=np.int64), one.rows) for one in found]),
    )


def schema_of(storage: Storage, entry: Entry) -> pa.Schema:
    """Read the schema of a stream."""
    return pa.ipc.read_schema(pa.PythonFile(open_file(storage, entry), mode="r"))


def batch_images(data: bytes, schema: pa.Schema, image: str) -> list[bytes | None]:
    """Return the encoded images of a record batch.

    Args:
        data: its bytes in the stream.
        schema: that of the stream.
        image: the name of the column of images.
    """
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(data), schema)
    return encoded(pa.chunked_array([batch.column(image)]))


def _data_files(storage: Storage, files: Listing) -> Listing:
    """Return the files that ``state.json`` names; where there is none, all but those of a cache."""
    named: list[str] = []
    for entry in files.matching(_STATE):
        folder = entry.path.removesuffix("state.json")
        try:
            named += [f"{folder}{file['filename']}" for file in json.loads(storage.read(entry))["_data_files"]]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{storage.uri}/{entry.path} does not name data files, as save_to_disk writes it") from None
    found = files.named(*named) if named else files.matching(ARROW)
    missing = sorted(set(named) - set(found.paths.to_pylist()))
    if missing or not found:
        raise UserError(f"{storage.uri}/{missing[0] if missing else 'data-00000-of-00001.arrow'} is missing")
    return found


def _scan(storage: Storage, entry: Entry, held_out: bool, config: SplitConfig) -> _Stream:
    """Read a stream once: its labels, and where its record batches are."""
    place = f"{storage.uri}/{entry.path}"
    try:
        stream = pa.PythonFile(open_file(storage, entry), mode="r")
        schema = pa.ipc.read_schema(stream)
        columns = find_columns(place, schema, config)
        column, rows, offsets, sizes = [], [], [], []
        messages = pa.ipc.MessageReader.open_stream(stream)
        while True:
            start = stream.tell()
            try:
                message = messages.read_next_message()
            except StopIteration:
                break
            batch = pa.ipc.read_record_batch(message, schema)
            column.append(batch.column(columns.label))
            rows.append(len(batch))
            offsets.append(start)
            sizes.append(stream.tell() - start)
    except (pa.ArrowException, OSError, EOFError) as e:
        raise UserError(f"{place} is no whole Arrow stream: {str(e).splitlines()[0]}") from None
    if not sum(rows):
        raise UserError(f"{place} holds no rows")
    labels = labels_of(place, schema, columns.label, pa.chunked_array(column), held_out)
    return _Stream(labels, columns.image, rows, offsets, sizes)
