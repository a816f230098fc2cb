"""Image trees to Parquet shards that stream well: encoded bytes as they are, classes mixed, pages checksummed."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pfs_core
from pfs_core.data.dataset import Source
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader
from pfs_core.errors import UserError
from pfs_core.runtime.progress import TimeLeft, say
from pfs_core.storage import Storage, open_storage
from pfs_core.storage.listing import Listing

PLAN, COMPLETE = "pack.json", "complete.json"
_GROUP = 64


class _Shard(NamedTuple):
    name: str
    rows: np.ndarray


def pack(dataset: str, out: str, shard_mib: float = 128, workers: int = 4) -> None:
    """Pack the image tree at ``dataset`` into Parquet files of about ``shard_mib`` MiB at ``out``.

    Columns: ``image`` (the file's bytes), ``label``, ``name`` (its path); class names in the schema metadata. Training
    rows go to ``train-*.parquet``, the held-out part to ``test-*.parquet``, each in an order drawn once from the names,
    so that a row group holds a mixture of classes. A pack that was stopped is taken up where it was: a shard is there
    whole or not at all, and ``complete.json`` is written last.

    Args:
        dataset: path, ``file://`` or ``s3://`` address of an image tree.
        out: path or address to write to.
        shard_mib: size of a shard.
        workers: shards that are made at the same time; each is held in memory.

    Raises:
        UserError: ``dataset`` is no image tree, or ``out`` holds something else.
    """
    source = open_source(dataset)
    if source.kind != "tree":
        raise UserError(f"dataset {dataset} is not a tree of image files; there is nothing to pack")
    target = open_storage(out)
    shards = list(_shards(source, shard_mib * 2**20))
    settings = {
        "schema": "pfs.pack/1",
        "fingerprint": source.fingerprint,
        "shard_mib": shard_mib,
        "shards": len(shards),
    }
    there = _resumed(target, settings)
    missing = [shard for shard in shards if shard.name not in there]
    if len(missing) < len(shards):
        say(f"pack {len(shards) - len(missing)} of {len(shards)} shards are there already")
    left, reader = TimeLeft(), Reader(source)
    with ThreadPoolExecutor(workers) as pool:
        made = [pool.submit(_write, source, reader, target, shard) for shard in missing]
        try:
            for done, future in enumerate(as_completed(made), 1):
                say(f"pack {future.result()}  {done}/{len(missing)}  left {left(done, len(missing))}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = {shard.name: len(shard.rows) for shard in shards}
    record = {**settings, "rows": rows, "source": source.uri, "pfs_version": pfs_core.__version__}
    target.write(COMPLETE, json.dumps(record, indent=1).encode())
    say(f"pack {len(source):,} images of {len(source.class_names)} classes in {len(shards)} shards at {target.uri}")


def _shards(source: Source, size: float) -> Iterator[_Shard]:
    """The rows of every shard, in an order that depends on the names alone."""
    for part, held_out in (("train", False), ("test", True)):
        rows = np.flatnonzero(source.is_test == held_out)
        if not len(rows):
            continue
        rows = np.random.default_rng(0).permutation(rows)
        ends = np.cumsum(source.files.sizes[source.file[rows]])
        cuts = np.flatnonzero(np.diff(ends // size)) + 1
        pieces = np.split(rows, cuts)
        for i, piece in enumerate(pieces):
            yield _Shard(f"{part}-{i:05d}-of-{len(pieces):05d}.parquet", piece)


def _resumed(target: Storage, settings: dict[str, Any]) -> set[str]:
    """Names of the shards that an earlier, stopped pack of the same tree has left; writes the plan if there is none."""
    there = _listed(target)
    if not there:
        target.write(PLAN, json.dumps(settings).encode())
        return set()
    plan = there.named(PLAN)
    if not plan or json.loads(target.read(plan[0])) != settings:
        raise UserError(f"{target.uri} holds something else than this pack; name an empty folder or prefix")
    return set(there.paths.to_pylist())


def _listed(target: Storage) -> Listing:
    try:
        return target.files()
    except UserError:
        return Listing.of([])  # nothing there yet; what is really wrong shows at the first write


def _write(source: Source, reader: Reader, target: Storage, shard: _Shard) -> str:
    images = reader.read(shard.rows)
    names = source.names.take(pa.array(shard.rows)) if source.names is not None else None
    table = pa.table({"image": pa.array(images, pa.binary()), "label": source.labels[shard.rows], "name": names})
    table = table.replace_schema_metadata({"classes": json.dumps(source.class_names)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / shard.name
        pq.write_table(table, path, row_group_size=_GROUP, compression="none", write_page_checksum=True)
        target.write(shard.name, path)
    return shard.name
