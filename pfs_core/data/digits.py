"""The 1,797 real handwritten digits that ship with scikit-learn: 8x8 pixels, one channel, ten classes."""

import hashlib

import sklearn.datasets
import torch

from pfs_core.data.source import ImageSource


def load_digits() -> ImageSource:
    """The digits as uint8 [1797, 1, 8, 8] (ink 0-16 stretched to 0-255); no test set of their own."""
    bunch = sklearn.datasets.load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes())
    return ImageSource(
        images=images,
        labels=labels,
        files=["digits"] * len(labels),
        rows=torch.arange(len(labels)),
        is_test=torch.zeros(len(labels), dtype=torch.bool),
        class_names=[str(i) for i in range(10)],
        flip=False,
        fingerprint=digest.hexdigest(),
    )
