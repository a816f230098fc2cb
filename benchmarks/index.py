"""What it costs to split an index of ImageNet's size: 1,281,167 named rows in 1,000 classes, 50 of each to validate.

    python benchmarks/index.py

The peak is that of the whole process; what Python and its libraries take before the index is made is given beside it.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pfs_core.data.source import Source
from pfs_core.data.split import PARTS, choose_rows, index_tables
from pfs_core.latency.machine import machine
from pfs_core.recipes import SplitRecipe
from pfs_core.storage import Entry

ROWS, CLASSES = 1_281_167, 1000


def source() -> Source:
    """A tree of so many files, none of which exists."""
    labels = np.sort(np.random.default_rng(0).integers(0, CLASSES, ROWS))
    paths = [f"n{label:08d}/n{label:08d}_{i}.JPEG" for i, label in enumerate(labels.tolist())]
    return Source(
        uri="s3://bucket/imagenet",
        kind="tree",
        files=[Entry(path, 110_000, "d41d8cd98f00b204e9800998ecf8427e") for path in paths],
        file=np.arange(ROWS, dtype=np.int32),
        group=(np.arange(ROWS) // 256).astype(np.int32),
        row=np.zeros(ROWS, dtype=np.int64),
        labels=labels,
        is_test=np.arange(ROWS) % 26 == 0,
        names=pa.array(paths),
        class_names=[f"n{i:08d}" for i in range(CLASSES)],
        flip=True,
        fingerprint="0" * 64,
    )


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Print a line."""
    before = peak_mib()
    made = source()
    started = time.perf_counter()
    parts = choose_rows(made, SplitRecipe(validation_per_class=50), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        for i, table in enumerate(index_tables(made, parts)):
            pq.write_table(table, Path(folder) / f"{i}.parquet")
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    seconds = time.perf_counter() - started
    rows = ", ".join(f"{int((parts == part).sum()):,} {part}" for part in PARTS)
    cpu = machine()
    print(f"{cpu['cpu']}, {torch.get_num_threads()} threads: {rows} rows chosen and written in {seconds:.1f} s")
    print(
        f"index of {size / 2**20:.0f} MiB; peak {peak_mib():.0f} MiB, of which {before:.0f} MiB before there were rows"
    )


if __name__ == "__main__":
    main()
