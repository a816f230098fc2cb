"""What it costs to split a set of ImageNet's size in a bucket: 1,281,167 images in 1,000 classes.

    python benchmarks/index.py
    python benchmarks/index.py --table 100000000

All of the split runs as it would, but for HTTP: boto3's client gets its pages of 1,000 names, and the images that are
looked at, from here. Every image is the same JPEG. The peak is that of the whole process; what Python and its libraries
take before anything is listed is given beside it.

``--table`` splits Parquet files of so many rows: one file of a million, under many names. Its images, JPEGs of 64
pixels a side, are decoded for one of the names only, and how long that takes is given apart.
"""

import argparse
import io
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from botocore.client import BaseClient
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split, split_dataset
from pfs_core.data.open import open_source
from pfs_core.data.reading import Readings, check_images

ROWS, HELD_OUT, CLASSES, PAGE = 1_281_167, 50_000, 1000, 1000
MILLION = 10**6


def key(i: int) -> str:
    """The name of object ``i``, in key order."""
    if i == 0:
        return "imagenet/LOC_synset_mapping.txt"
    i -= 1
    training = ROWS - HELD_OUT
    if i < training:
        folder = f"n{i * CLASSES // training:08d}"
        return f"imagenet/train/{folder}/{folder}_{i:07d}.JPEG"
    i -= training
    return f"imagenet/val/n{i * CLASSES // HELD_OUT:08d}/ILSVRC2012_val_{i:08d}.JPEG"


def jpeg(width: int = 500, height: int = 375) -> bytes:
    """A picture, of ImageNet's usual size unless another one is asked for."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


class Bucket:
    """Answers the two calls that a split makes, and remembers when it was first asked for an image."""

    def __init__(self) -> None:
        self.image = jpeg()
        self.read = 0
        self.first_read = 0.0

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any]:
        """In place of a request."""
        if operation == "GetObject":
            self.first_read = self.first_read or time.perf_counter()
            self.read += 1
            return {"Body": io.BytesIO(self.image)}
        assert operation == "ListObjectsV2"
        start = int(values.get("ContinuationToken", 0))
        stop = min(start + PAGE, ROWS + 1)
        found = [{"Key": key(i), "Size": len(self.image), "ETag": etag(i)} for i in range(start, stop)]
        more = {"IsTruncated": True, "NextContinuationToken": str(stop)} if stop <= ROWS else {"IsTruncated": False}
        return {"Contents": found, **more}


def etag(i: int) -> str:
    """Another one for every object, as S3's are."""
    return f'"{(i + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"'


def peak_mb() -> float:
    """The largest resident size of this process so far, in 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10) / 1e6


def table(folder: Path, rows: int) -> None:
    """Write Parquet files of a million rows each, which share their bytes."""
    labels = np.random.default_rng(0).integers(0, CLASSES, MILLION)
    images = pa.DictionaryArray.from_arrays(np.zeros(MILLION, dtype=np.int32), pa.array([jpeg(64, 64)]))
    first = folder / "train-00000.parquet"
    pq.write_table(pa.table({"image": images, "label": labels}), first, row_group_size=10_000)
    for i in range(1, rows // MILLION):
        os.link(first, folder / f"train-{i:05}.parquet")


def split_table(rows: int) -> None:
    """Print two lines on a table: its split, and the decoding of its images."""
    before = peak_mb()
    split.images_checked_once = lambda *_: Readings(None, {}, Counter())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one").mkdir()
        (folder / "all").mkdir()
        table(folder / "one", MILLION)
        table(folder / "all", rows)
        started = time.perf_counter()
        split_dataset(str(folder / "all"), folder / "split", SplitConfig(image_size=32))
        seconds, peak = time.perf_counter() - started, peak_mb()
        one = open_source(str(folder / "one"), SplitConfig(image_size=32))
        started = time.perf_counter()
        check_images(one, skip=False)
        decoding = time.perf_counter() - started
    print(f"{rows:,} rows: {seconds:.0f} s, peak {peak:.0f} MB, {before:.0f} MB of them before; without decoding")
    print(f"decoding: {MILLION / decoding:,.0f} images a second on {len(os.sched_getaffinity(0))} cores")


def main() -> None:
    """Print two lines after the split's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, metavar="ROWS", help="a number of millions")
    if rows := parser.parse_args().table:
        split_table(rows)
        return
    before, bucket = peak_mb(), Bucket()
    BaseClient._make_api_call = bucket.answer
    recipe = SplitConfig(validation_per_class=50, image_size=224)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        split_dataset("s3://bucket/imagenet", Path(folder) / "split", recipe)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in (Path(folder) / "split").glob("*.parquet"))
    chosen, peak = bucket.first_read - started, peak_mb()
    from pfs_core.latency.machine import machine  # it brings libraries that a split does not load

    print(
        f"{machine()['cpu']}, {torch.get_num_threads()} threads: listed and chosen in {chosen:.1f} s, {seconds:.1f} s "
        f"with {bucket.read:,} images read and {size / 1e6:.0f} MB of index written"
    )
    print(f"peak {peak:.0f} MB, of which {before:.0f} MB are the libraries before anything is listed")


if __name__ == "__main__":
    main()
