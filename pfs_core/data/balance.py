"""What makes up for classes of different sizes: weights of the loss, or as many images of each in an epoch."""

import numpy as np


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return weights of the classes that make the weights of all their images sum to the same.

    Args:
        labels: int64 [N].
        classes: the number of classes; those without an image are left out of account and get 0.

    Returns:
        float64 [classes], images / (classes * images of the class); the mean over the images is 1.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.zeros(classes)
    present = counts > 0
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def balanced_rows(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw as many rows as there are, of every class as many give or take one, in random order.

    A class that is too small gives all its rows as often as they fit in whole, and others of them at random.

    Args:
        labels: int64 [N].
        seed: of the choice.

    Returns:
        int64 [N] positions in ``labels``.
    """
    random = np.random.default_rng(seed)
    present = random.permutation(np.unique(labels))
    drawn = []
    for i, label in enumerate(present):
        rows = random.permutation(np.flatnonzero(labels == label))
        share = (len(labels) + i) // len(present)  # these sum to N, whatever the remainder
        drawn.append(np.resize(rows, share))
    return random.permutation(np.concatenate(drawn))
