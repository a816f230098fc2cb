"""The classes that pruning hurt most."""

from dataclasses import dataclass

import numpy as np

from pfs_core.report.results import Results

COUNT = 8


@dataclass(frozen=True)
class LostClass:
    """A class on which the pruned network is worse than the dense one.

    Attributes:
        name: of the class.
        images: that test it.
        dense: share of them that the dense network takes for what they are.
        pruned: the same of the pruned network.
    """

    name: str
    images: int
    dense: float
    pruned: float

    @property
    def lost(self) -> float:
        """Share of its images that is lost."""
        return self.dense - self.pruned


def lost_most(results: Results) -> list[LostClass]:
    """The classes that lost most, by the share of their test images; none where no dense network was trained."""
    if results.dense is None:
        return []
    dense, pruned = np.array(results.dense.confusion_matrix), np.array(results.pruned.confusion_matrix)
    images = dense.sum(axis=1)
    right_dense = np.diag(dense) / np.maximum(images, 1)
    right_pruned = np.diag(pruned) / np.maximum(images, 1)
    rows = [
        LostClass(name, int(i), float(d), float(p))
        for name, i, d, p in zip(results.pruned.class_names, images, right_dense, right_pruned, strict=True)
    ]
    return sorted((row for row in rows if row.lost > 0), key=lambda row: -row.lost)[:COUNT]
