"""Packs image trees into Parquet shards that stream well: classes mixed, pages with checksums, pictures no larger than
needed or as they are.
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pfs_core
from pfs_core.config.stages import SplitConfig
from pfs_core.data.dataset import Source
from pfs_core.data.left_out import summary
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader
from pfs_core.data.shrink import shrink
from pfs_core.errors import NotFoundError, UserError
from pfs_core.runtime.progress import TimeLeft
from pfs_core.storage import Storage, open_storage
from pfs_core.storage.listing import Listing

logger = logging.getLogger(__package__)

PLAN, COMPLETE = "pack.json", "complete.json"
_GROUP = 64


class _Shard(NamedTuple):
    """The name of a shard's file, and the rows of the tree that it holds."""

    name: str
    rows: np.ndarray


class Shrinking(NamedTuple):
    """How pictures are encoded anew (:func:`~pfs_core.data.shrink.shrink`)."""

    max_side: int
    quality: int = 90
    background: str = "white"


def pack(
    dataset: str,
    out: str,
    shard_mib: float = 128,
    workers: int = 4,
    shrinking: Shrinking | None = None,
    config: SplitConfig = SplitConfig(),
) -> None:
    """Pack the image tree at ``dataset`` into Parquet files of about ``shard_mib`` MiB at ``out``.

    The columns are ``image`` (the bytes of a file, shrunk or not), ``label`` and ``name`` (the path of the file); class
    names are in the schema metadata. Training rows go to ``train-*.parquet``, held-out rows to
    ``validation-*.parquet`` and ``test-*.parquet``, all in a random order, so that every row group holds a mixture of
    classes. A stopped pack resumes: shards are written whole or not at all, and ``complete.json`` is written last.

    Args:
        dataset: path, ``file://`` or ``s3://`` address of an image tree.
        out: path or address of the pack.
        shard_mib: size of a shard in MiB.
        workers: number of shards that are made at the same time, each of them in memory.
        shrinking: how to encode pictures anew that are larger; None leaves all of them as they are.
        config: its columns and ``on_bad`` say how a list is read, and whether links to nothing are left out.

    Raises:
        UserError: ``dataset`` is not an image tree, or ``out`` holds something else than this pack.
    """
    source = open_source(dataset, config)
    if source.kind != "tree":
        raise UserError(f"dataset {dataset} is not a tree of image files; there is nothing to pack")
    for note in source.notes:
        logger.info(f"pack {note}")
    target = open_storage(out)
    shards = list(_shards(source, shard_mib * 2**20))
    settings = {
        "schema": "pfs.pack/1",
        "fingerprint": source.fingerprint,
        "shard_mib": shard_mib,
        "shards": len(shards),
        **(shrinking._asdict() if shrinking else {}),
    }
    present = _present_shards(target, settings)
    missing = [shard for shard in shards if shard.name not in present]
    if len(missing) < len(shards):
        logger.info(f"pack {len(shards) - len(missing)} of {len(shards)} shards are there already")
    time_left, reader = TimeLeft(), Reader(source)
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_write, source, reader, target, shard, shrinking) for shard in missing]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                logger.info(f"pack {future.result()}  {done}/{len(missing)}  left {time_left(done, len(missing))}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = {shard.name: len(shard.rows) for shard in shards}
    record = {**settings, "rows": rows, "source": source.uri, "pfs_version": pfs_core.__version__}
    target.write(COMPLETE, json.dumps(record, indent=1).encode())
    beside = f"; {summary(source.left_out)}" if source.left_out else ""
    classes = f"{len(source.class_names)} classes"
    logger.info(f"pack {len(source):,} images of {classes} in {len(shards)} shards at {target.uri}{beside}")


def _shards(source: Source, size: float) -> Iterator[_Shard]:
    """Yield the shards of all parts.

    The order of the rows is drawn with a fixed seed, so that a resumed pack finds the same rows in each shard.

    Args:
        source: the tree.
        size: bytes of a shard.
    """
    validates = np.zeros(len(source), dtype=bool) if source.is_validation is None else source.is_validation
    parts = {"train": ~(source.is_test | validates), "validation": validates, "test": source.is_test}
    for part, chosen in parts.items():
        rows = np.flatnonzero(chosen)
        if not len(rows):
            continue
        rows = np.random.default_rng(0).permutation(rows)
        ends = np.cumsum(source.files.sizes[source.file[rows]])
        cuts = np.flatnonzero(np.diff(ends // size)) + 1
        rows_of_shards = np.split(rows, cuts)
        for i, rows_of_shard in enumerate(rows_of_shards):
            yield _Shard(f"{part}-{i:05d}-of-{len(rows_of_shards):05d}.parquet", rows_of_shard)


def _present_shards(target: Storage, settings: dict[str, Any]) -> set[str]:
    """Return the names of the files that a stopped pack with the same settings has left.

    If there are none, ``pack.json`` is written, by which this pack can be resumed.

    Raises:
        UserError: ``target`` holds anything else.
    """
    files = _listed(target)
    if not files:
        target.write(PLAN, json.dumps(settings).encode())
        return set()
    plan = files.named(PLAN)
    if not plan or json.loads(target.read(plan[0])) != settings:
        raise UserError(f"{target.uri} holds something else than this pack; name an empty folder or prefix")
    return set(files.paths.to_pylist())


def _listed(target: Storage) -> Listing:
    """Return the files of ``target``, which may not exist yet."""
    try:
        return target.files()
    except NotFoundError:
        return Listing.of([])  # nothing there yet


def _write(source: Source, reader: Reader, target: Storage, shard: _Shard, shrinking: Shrinking | None) -> str:
    """Write a shard; returns its name."""
    images = reader.read(shard.rows)
    if shrinking:
        images = [shrink(data, *shrinking) for data in images]
    names = source.names.take(pa.array(shard.rows)) if source.names is not None else None
    table = pa.table({"image": pa.array(images, pa.binary()), "label": source.labels[shard.rows], "name": names})
    table = table.replace_schema_metadata({"classes": json.dumps(source.class_names)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / shard.name
        pq.write_table(table, path, row_group_size=_GROUP, compression="none", write_page_checksum=True)
        target.write(shard.name, path)
    return shard.name
