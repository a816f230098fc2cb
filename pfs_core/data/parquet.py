"""Folders of Parquet files with a column ``image`` (PNG or JPEG bytes) and a column ``label`` (integer).

Files whose name starts with ``test`` are the test set. Hugging Face's ``struct<bytes, path>`` image columns are read
too. ``classes`` in the schema metadata (a JSON list of names) names the classes.
"""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pfs_core.data.source import ImageSource
from pfs_core.errors import UserError
from pfs_core.files import sha256

_CHUNK = 1000


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of ``folder`` in name order; UserError if there is none or it is not a folder."""
    if not folder.is_dir():
        raise UserError(f"dataset {folder} is a file; name the folder that holds the Parquet files")
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(f"dataset {folder} holds no *.parquet file")
    if all(_is_test(file) for file in files):
        raise UserError(f"dataset {folder} holds test files only; expected training files such as train.parquet")
    return files


def load_parquet(folder: Path) -> ImageSource:
    """Read and decode every row of every Parquet file in ``folder``.

    Raises:
        UserError: a file is not Parquet or lacks a column, an image cannot be decoded or differs in size, or a label
            is out of range. The line names the file and the row, counted from 0.
    """
    images, labels, files, rows, is_test = [], [], [], [], []
    class_names: list[str] | None = None
    digest = hashlib.sha256()
    shape: torch.Size | None = None
    for file in parquet_files(folder):
        table = _read(file)
        class_names = class_names or _class_names(file, table.schema)
        decoded, shape = _decode(file, table.column("image"), shape)
        images.append(decoded)
        labels.append(_labels(file, table.column("label")))
        files += [file.name] * len(table)
        rows.append(torch.arange(len(table)))
        is_test.append(torch.full((len(table),), _is_test(file)))
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    source = ImageSource(
        images=torch.cat(images),
        labels=torch.cat(labels),
        files=files,
        rows=torch.cat(rows),
        is_test=torch.cat(is_test),
        class_names=class_names or [],
        flip=True,
        fingerprint=digest.hexdigest(),
    )
    return _with_classes(source, folder)


def _is_test(file: Path) -> bool:
    return file.name.startswith("test")


def _read(file: Path) -> pa.Table:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{file} is not a Parquet file: {str(e).splitlines()[0]}") from None
    for column, meaning in (("image", "PNG or JPEG bytes"), ("label", "integers from 0")):
        if column not in schema.names:
            raise UserError(f"{file} has no column {column!r} ({meaning}); its columns: {', '.join(schema.names)}")
    if not pa.types.is_integer(schema.field("label").type):
        raise UserError(f"{file}: column 'label' must hold integers, not {schema.field('label').type}")
    image = schema.field("image").type
    if not (_is_bytes(image) or (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0)):
        raise UserError(f"{file}: column 'image' must hold PNG or JPEG bytes, not {image}")
    try:
        table = pq.read_table(file, columns=["image", "label"])
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{file} cannot be read: {str(e).splitlines()[0]}") from None
    if not len(table):
        raise UserError(f"{file} holds no rows")
    return table


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _decode(file: Path, column: pa.ChunkedArray, shape: torch.Size | None) -> tuple[Tensor, torch.Size]:
    """uint8 [N, C, H, W] of a column of encoded images, all of ``shape`` (any one shape if None), and that shape."""
    values = [value.as_py() for value in column]
    if pa.types.is_struct(column.type):
        values = [value and value["bytes"] for value in values]
    shape = _decode_one(file, 0, values[0]).shape if shape is None else shape
    out = torch.empty(len(values), *shape, dtype=torch.uint8)

    def decode(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(values))):
            image = _decode_one(file, row, values[row])
            if image.shape != shape:
                raise UserError(f"{file}, row {row}: the image is {_size(image.shape)}, the first one {_size(shape)}")
            out[row] = image

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(0, len(values), _CHUNK)))
    return out, shape


def _decode_one(file: Path, row: int, data: bytes | None) -> Tensor:
    """uint8 [1, H, W] of a grey image, else [3, H, W]."""
    if not data:
        raise UserError(f"{file}, row {row}: the image is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits a channel")
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = "neither PNG nor JPEG" if isinstance(e, UnidentifiedImageError) else str(e)
        raise UserError(f"{file}, row {row}: the image cannot be decoded ({reason})") from None
    return torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1)


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def _labels(file: Path, column: pa.ChunkedArray) -> Tensor:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UserError(f"{file}, row {row}: the label is missing")
    labels = torch.from_numpy(column.to_numpy().astype(np.int64))
    if (labels < 0).any():
        row = int((labels < 0).nonzero()[0])
        raise UserError(f"{file}, row {row}: label {int(labels[row])} is out of range; labels count from 0")
    return labels


def _class_names(file: Path, schema: pa.Schema) -> list[str] | None:
    text = (schema.metadata or {}).get(b"classes", b"")
    if not text:
        return None
    try:
        names = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError):
        names = None
    if not isinstance(names, list):
        raise UserError(f"{file}: 'classes' in the schema metadata must be a JSON list of names")
    return [str(name) for name in names]


def _with_classes(source: ImageSource, folder: Path) -> ImageSource:
    """``source`` with its labels checked against its classes: those named, else 0 to the last one without a gap."""
    names = source.class_names
    if not names:
        seen = source.labels[~source.is_test].unique()
        count = int((seen == torch.arange(len(seen))).cumprod(0).sum())
        names = [str(i) for i in range(count)]
    bad = (source.labels >= len(names)).nonzero()
    if len(bad):
        i = int(bad[0])
        where = f"{folder / source.files[i]}, row {int(source.rows[i])}"
        known = "are named in its schema" if source.class_names else "occur in the training files without a gap"
        raise UserError(
            f"{where}: label {int(source.labels[i])} is out of range; {len(names)} classes {known}, "
            f"so labels are 0 to {len(names) - 1}"
        )
    if len(names) < 2:
        raise UserError(f"dataset {folder} has a single class; at least 2 are needed")
    return replace(source, class_names=names)
