"""From the address of a dataset to batches on the device: formats, the split, loading, augmentation."""

from pfs_core.data.loading import ImageSplit, load_split
from pfs_core.data.split import split_dataset

__all__ = ["ImageSplit", "load_split", "split_dataset"]
