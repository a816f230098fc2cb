"""Folders of Parquet files with images that were made up."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from pfs_core.data.dataset import Source
from pfs_core.data.open import open_source
from pfs_core.data.reading import load_images
from pfs_core.storage.listing import Entry, Listing


def images(count, shape=(3, 6, 5), seed=0):
    """uint8 [count, C, H, W]."""
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def encode(image, kind="PNG"):
    """The bytes of a PIL image."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(image):
    """The bytes of uint8 [C, H, W] as PNG: grey for one channel, colours for three."""
    array = image.permute(1, 2, 0).numpy()
    return encode(Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array))


def write(path, encoded, labels, classes=None, label_type=None, image_type=None, **options):
    """A Parquet file of encoded images and labels."""
    table = pa.table({"image": pa.array(encoded, type=image_type), "label": pa.array(labels, type=label_type)})
    if classes:
        table = table.replace_schema_metadata(
            {"classes": json.dumps(classes if isinstance(classes, dict) else list(classes))}
        )
    pq.write_table(table, path, **options)


def picture(seed, size=(12, 10), mode="RGB"):
    """A PIL image of noise, its size (width, height)."""
    width, height = size
    array = images(1, (3, height, width), seed)[0].permute(1, 2, 0).numpy()
    return Image.fromarray(array).convert(mode)


def tree(root, *paths, kind="PNG", size=(12, 10)):
    """A tree of images: noise, another one at each path."""
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encode(picture(seed, size), kind))
    return root


def decoded(folder, channels=None):
    """All images of a dataset that is kept in memory."""
    found = open_source(str(folder))
    return found.images if found.images is not None else load_images(found, channels, skip=False).images


def source(rows, classes=2, test_rows=0, names=None):
    """A source without images, the last ``test_rows`` of which it gives as its test set."""
    return Source(
        uri="made up",
        kind="arrays",
        files=Listing.of([Entry("made up", rows, "")]),
        file=np.zeros(rows, dtype=np.int32),
        group=np.zeros(rows, dtype=np.int32),
        row=np.arange(rows),
        labels=np.arange(rows) % classes,
        is_test=np.arange(rows) >= rows - test_rows,
        names=names,
        class_names=[str(i) for i in range(classes)],
        flip=False,
        fingerprint="0" * 64,
    )
