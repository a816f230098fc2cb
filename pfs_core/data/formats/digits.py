"""The 1,797 real handwritten digits that come with scikit-learn: 8x8 pixels, one channel, ten classes."""

import hashlib

import numpy as np
import torch

from pfs_core.data.dataset import Source
from pfs_core.storage.listing import Entry, Listing


def load_digits() -> Source:
    """Load the digits as uint8 [1797, 1, 8, 8], scaled from 0-16 to 0-255; they have no test set of their own."""
    import sklearn.datasets  # here, as it takes a second

    bunch = sklearn.datasets.load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = bunch.target.astype(np.int64)
    digest = hashlib.sha256(images.numpy().tobytes() + labels.tobytes())
    return Source(
        uri="digits",
        kind="arrays",
        files=Listing.of([Entry("digits", images.numel(), "")]),
        file=np.zeros(len(labels), dtype=np.int32),
        group=np.zeros(len(labels), dtype=np.int32),
        row=np.arange(len(labels)),
        labels=labels,
        is_test=np.zeros(len(labels), dtype=bool),
        names=None,
        class_names=[str(i) for i in range(10)],
        flip=False,
        fingerprint=digest.hexdigest(),
        images=images,
    )
