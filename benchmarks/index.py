"""What it costs to split a set of ImageNet's size in a bucket: 1,281,167 images in 1,000 classes.

    python benchmarks/index.py

All of the split runs as it would, but for HTTP: boto3's client gets its pages of 1,000 names, and the images that are
looked at, from here. Every image is the same JPEG. The peak is that of the whole process; what Python and its libraries
take before anything is listed is given beside it.
"""

import io
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from botocore.client import BaseClient
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset

ROWS, HELD_OUT, CLASSES, PAGE = 1_281_167, 50_000, 1000, 1000


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


def jpeg() -> bytes:
    """A picture of ImageNet's usual size, 500 x 375 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (94, 125, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
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


def main() -> None:
    """Print two lines after the split's own."""
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
