"""Images that are in two parts of a dataset that comes in parts: known by their bytes."""

import hashlib

import numpy as np

from pfs_core.data.dataset import Source


def comes_in_parts(source: Source) -> bool:
    """Whether a dataset says of some of its rows which part they belong to."""
    return source.is_validation is not None or bool(source.is_test.any())


def digest(data: bytes) -> int:
    """Return 64 bits of the SHA-256 of an image's bytes: of 100 million images two may be alike by chance."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


def in_two_parts(source: Source, digests: np.ndarray) -> tuple[int, ...]:
    """Look for images that are in two parts of a dataset.

    Args:
        source: the dataset, which comes in parts.
        digests: the :func:`digest` of each image, uint64 [N]; 0 of those that cannot be used.

    Returns:
        How many rows of later parts have the bytes of a row of an earlier one, in the order of training, validation and
        test; and the first such pair of rows, the earlier part's first. Empty if there are none.
    """
    part = 2 * source.is_test.astype(np.int8)
    if source.is_validation is not None:
        part += source.is_validation
    usable = np.flatnonzero(digests)
    by_part = usable[np.argsort(part[usable], kind="stable")]
    _, first, which = np.unique(digests[by_part], return_index=True, return_inverse=True)
    earliest = by_part[first[which]]
    shared = np.flatnonzero(part[earliest] < part[by_part])
    if not len(shared):
        return ()
    row = int(by_part[shared].min())
    return len(shared), int(earliest[by_part == row][0]), row
