"""Images with lists of their paths and labels beside them: CSV files, or Parquet files without images, at the root.

A path is that of an image below the dataset, or its name or the name without suffix where only one image has it. A
column named ``split`` (or the like), or the name of a list such as ``test.csv``, says the part.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import Labels, merge_labels
from pfs_core.data.dataset import Source, checked_classes, column_fingerprint, fingerprint
from pfs_core.data.formats.tree import GROUP, IMAGES
from pfs_core.data.left_out import left_out
from pfs_core.data.parts import given_parts, is_held_out, part_named, parts_in, words_in
from pfs_core.errors import UserError
from pfs_core.storage import Storage, open_file
from pfs_core.storage.listing import Entry, Listing

LISTS = r"(?i)^[^/]*\.(csv|tsv|parquet)$"
"""Pattern of the paths of files that may be lists."""

_LABELS = ("label", "labels", "class", "class_name", "classname", "class_id", "category", "target", "species", "breed")
_PARTS = ("split", "set", "subset", "part", "partition", "data set", "data_set", "dataset")


class _Listed(NamedTuple):
    """A list: for each of its rows the position of the image, the label as text and the part."""

    path: str
    images: np.ndarray
    labels: pa.Array
    parts: list[str]
    columns: str


def open_lists(storage: Storage, files: Listing, config: SplitConfig) -> Source | None:
    """Index the images that lists name; no image is read.

    Args:
        storage: the dataset.
        files: all of its files.
        config: which columns have the paths and the labels.

    Returns:
        The rows, or None where no file names images with labels.

    Raises:
        UserError: a list names images that are not there, names one twice, or has no label for it.
    """
    images = files.matching(IMAGES)
    candidates = files.matching(LISTS)
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda entry: _table(storage, entry), candidates))
    found = [
        listed
        for entry, table in zip(candidates, tables, strict=True)
        if table is not None and (listed := _listed(storage.uri, entry.path, table, images, config)) is not None
    ]
    if not found:
        return None
    rows = np.concatenate([one.images for one in found])
    _check_once(storage.uri, found, images)
    counts = [len(one.images) for one in found]
    places = [f"{one.path}: {part}" if part else one.path for one in found for part in dict.fromkeys(one.parts)]
    said = [part for one in found for part in dict.fromkeys(one.parts)]
    which, first = [], 0
    for one in found:
        own = list(dict.fromkeys(one.parts))
        which += [first + own.index(part) for part in one.parts]
        first += len(own)
    parts = given_parts(storage.uri, places, said, np.array(which))
    classes = merge_labels([labels for one in found for labels in _labels(storage.uri, one)])
    # _labels gives the rows of a list part by part; this brings them back to the order of the rows.
    order = np.concatenate([_by_part(one) + start for one, start in zip(found, np.cumsum([0, *counts]), strict=False)])
    labels = np.empty(len(rows), dtype=np.int64)
    labels[order] = classes.labels
    in_path_order = np.argsort(rows)
    rows = rows[in_path_order]
    chosen = images.take(rows)
    lists = [one.path for one in found]
    unlisted = left_out(images, chosen.paths, f"not in {', '.join(lists)}", always=True)
    others = files.filter(pc.invert(pc.is_in(files.paths, value_set=images.paths)))
    note = "; ".join(f"labels are from {one.path} ({one.columns})" for one in found)
    digest = fingerprint(storage, files.named(*lists, *chosen.paths.to_pylist()))
    return Source(
        uri=storage.uri,
        kind="tree",
        files=chosen,
        file=np.arange(len(rows), dtype=np.int32),
        group=np.arange(len(rows), dtype=np.int32) // GROUP,
        row=np.zeros(len(rows), dtype=np.int64),
        labels=labels[in_path_order],
        is_test=parts.is_test[in_path_order],
        names=chosen.paths,
        class_names=checked_classes(classes.names, storage.uri),
        flip=True,
        fingerprint=column_fingerprint(digest, config),
        is_validation=None if parts.is_validation is None else parts.is_validation[in_path_order],
        notes=(note, *parts.notes),
        left_out=unlisted + left_out(others, lists),
    )


def says_the_same(tree: Source, listed: Source) -> bool:
    """Whether a list gives the images of a tree the classes that their folders are, and no parts that it lacks."""
    more_parts = bool(listed.is_test.any()) and not tree.is_test.any()
    if more_parts:
        return False
    position = pc.index_in(listed.files.paths, value_set=tree.files.paths).to_numpy(zero_copy_only=False)
    pairs = np.unique(np.stack([tree.labels[position.astype(np.int64)], listed.labels]), axis=1)
    return bool(len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1])


def _table(storage: Storage, entry: Entry) -> pa.Table | None:
    """Read a file as a table of texts; None where it is no table or has images in it."""
    if "submission" in words_in(entry.path):
        return None
    try:
        if entry.path.lower().endswith(".parquet"):
            file = pq.ParquetFile(open_file(storage, entry))
            names = [field.name for field in file.schema_arrow if _may_be_text(field.type)]
            if len(names) < len([field for field in file.schema_arrow if not pa.types.is_floating(field.type)]):
                return None
            table = file.read(columns=names)
            return pa.table({name: _texts(table.column(name)) for name in names})
        data = storage.read(entry)
        options = pacsv.ParseOptions(delimiter="\t" if entry.path.lower().endswith(".tsv") else ",")
        head = pacsv.read_csv(io.BytesIO(data), parse_options=options)
        convert = pacsv.ConvertOptions(column_types=dict.fromkeys(head.column_names, pa.string()), null_values=[])
        return pacsv.read_csv(io.BytesIO(data), parse_options=options, convert_options=convert)
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError):
        return None


def _may_be_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(texts or pa.types.is_integer(kind))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
    return column.cast(pa.string())


def _listed(uri: str, path: str, table: pa.Table, images: Listing, config: SplitConfig) -> _Listed | None:
    """Find the columns of a list; None if no column names images, or there are no labels.

    Raises:
        UserError: a column that is set has a path to no image, a label is missing, or several columns may be labels.
    """
    columns = {name: table.column(name) for name in table.column_names}
    if config.image_column and config.image_column not in columns:
        return None
    rows = None
    for image in [config.image_column] if config.image_column else columns:
        rows = _resolved(f"{uri}/{path}", columns[image], images, bool(config.image_column))
        if rows is not None:
            break
    if rows is None or not len(rows):
        return None
    part = next((name for name in columns if name.lower() in _PARTS and _are_parts(columns[name])), None)
    label = _label_column(uri, path, [name for name in columns if name not in (image, part)], config)
    if label is None:
        return None
    texts = columns[label].combine_chunks()
    empty = np.flatnonzero(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True).to_numpy(False))
    if len(empty):
        raise UserError(f"{uri}/{path}, row {empty[0]}: the label is missing")
    if part:
        parts = [part_named(text) for text in columns[part].to_pylist()]
    else:
        said = parts_in(path.rpartition(".")[0])
        parts = [said.pop() if len(said) == 1 else ""] * len(rows)
    return _Listed(path, rows, texts, parts, f"paths in {image!r}, labels in {label!r}")


def _label_column(uri: str, path: str, others: list[str], config: SplitConfig) -> str | None:
    if config.label_column:
        return config.label_column if config.label_column in others else None
    usual = [name for name in others if name.lower() in _LABELS]
    found = usual[:1] or (others if len(others) == 1 else [])
    if not found and others:
        raise UserError(
            f"{uri}/{path} names images, but which of its other columns has the labels ({', '.join(others)})? "
            "Name it with split.label_column"
        )
    return found[0] if found else None


def _resolved(place: str, column: pa.ChunkedArray, images: Listing, must: bool) -> np.ndarray | None:
    """Return the positions of the images that a column names, int64 [n]; None if it does not name images.

    Raises:
        UserError: most of the texts name images, or must, and one does not.
    """
    texts = pc.replace_substring_regex(pc.fill_null(column, ""), r"\\", "/")
    texts = pc.replace_substring_regex(texts, r"^(\./|/)+", "").combine_chunks()
    best = np.full(len(texts), -1)
    for pattern in ("", r"^.*/", r"^.*/|\.[^./]*$"):
        names = pc.replace_substring_regex(images.paths, pattern, "") if pattern else images.paths
        wanted = pc.replace_substring_regex(texts, r"^.*/", "") if pattern else texts
        if len(names.unique()) < len(names):
            continue
        found = pc.fill_null(pc.index_in(wanted, value_set=names), -1).to_numpy(zero_copy_only=False)
        if (found >= 0).sum() > (best >= 0).sum():
            best = found
        if len(best) and (best >= 0).all():
            return best.astype(np.int64)
    if not len(best) or not (must or (best >= 0).mean() > 0.5):
        return None
    row = int(np.flatnonzero(best < 0)[0])
    raise UserError(f"{place}, row {row}: there is no image {column[row].as_py()!r}")


def _are_parts(column: pa.ChunkedArray) -> bool:
    return all(text and part_named(text) for text in column.unique().to_pylist())


def _check_once(uri: str, found: list[_Listed], images: Listing) -> None:
    """Raise UserError if an image is named twice."""
    rows = np.concatenate([one.images for one in found])
    counts = np.bincount(rows)
    if counts.max() < 2:
        return
    row = int(np.argmax(counts > 1))
    texts = {text.as_py() for one in found for text in one.labels.filter(pa.array(one.images == row))}
    raise UserError(
        f"{uri}: {images[row].path} is named {counts[row]} times, as {' and '.join(sorted(map(repr, texts)))}; "
        "an image may have one row"
    )


def _by_part(one: _Listed) -> np.ndarray:
    """Return the rows of a list, those that are not held out first."""
    held_out = np.array([is_held_out(part) for part in one.parts])
    return np.concatenate([np.flatnonzero(~held_out), np.flatnonzero(held_out)])


def _labels(uri: str, one: _Listed) -> list[Labels]:
    """Return the labels of a list, of the rows to train on and of those that are held out."""
    names = one.labels.unique().to_pylist()
    numbers = all(name.isdecimal() for name in names)
    names = sorted(names, key=lambda name: (int(name), name) if numbers else (0, name))
    codes = pc.index_in(one.labels, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)
    held_out = np.array([is_held_out(part) for part in one.parts])
    place = f"{uri}/{one.path}"
    both = [out for out in (False, True) if (held_out == out).any()]
    return [Labels(place, codes[held_out == out], names, out, is_text=True) for out in both]
