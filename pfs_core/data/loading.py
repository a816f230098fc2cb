"""A split folder as images to train and test on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from pfs_core.data.dataset import Source
from pfs_core.data.image_augmentation import ImageAugmentation
from pfs_core.data.images import Images, InMemory
from pfs_core.data.split_info import PARTS, SplitInfo
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from pfs_core.storage.artifacts import require_result
from pfs_core.storage.listing import Listing


@dataclass(frozen=True)
class ImageSplit:
    """A split, ready to be read.

    Attributes:
        parts: the rows of each part in the order of the index, int64 [n].
        info: the content of ``split.json``.
        images: uint8 [N, C, H, W] on the device, or None where images are streamed.
        source: where images are streamed from.
        labels: int64 [N].
        device: where batches go.
    """

    parts: Mapping[str, np.ndarray]
    info: SplitInfo
    labels: Tensor
    device: torch.device
    images: Tensor | None = None
    source: Source | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.info.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return self.info.input_shape

    def part(
        self,
        *names: str,
        rank: int = 0,
        world: int = 1,
        augment: ImageAugmentation | None = None,
        balanced: bool = False,
    ) -> Images:
        """The images of one part, or of several as one: the share of process ``rank`` of ``world``.

        ``augment`` changes training images after crop and mirroring; with ``balanced`` an epoch has equally many images
        of every class.
        """
        rows = np.concatenate([self.parts[name] for name in names])
        return self._images(rows, rank, world, augment, balanced)

    def sample(self, name: str, count: int) -> Images:
        """``count`` images of a part, or all that it has; the same ones in every call."""
        rows = self.parts[name]
        drawn = np.random.default_rng(0).permutation(len(rows))[:count]
        return self._images(rows[np.sort(drawn)])

    def _images(
        self,
        rows: np.ndarray,
        rank: int = 0,
        world: int = 1,
        augment: ImageAugmentation | None = None,
        balanced: bool = False,
    ) -> Images:
        augmentation = self.info.augmentation
        if self.images is not None:
            assert augmentation.crop_padding is not None
            index = torch.from_numpy(rows).to(self.device)
            images, labels = self.images[index], self.labels[index]
            padding, flip = augmentation.crop_padding, augmentation.flip
            return InMemory(images, labels, padding, flip, rank, world, augment, balanced)
        from pfs_core.data.crop import crop_for
        from pfs_core.data.stream import Streamed

        assert self.source is not None
        crop = crop_for(self.info.config, self.input_shape[0])
        flip, device = augmentation.flip, self.device
        return Streamed(
            self.source, rows, crop, flip, device, rank=rank, world=world, augment=augment, balanced=balanced
        )


def load_split(folder: str | Path, device: torch.device | str = "cpu") -> ImageSplit:
    """Read a ``split`` folder.

    Raises:
        UserError: it is not a complete one, or the files that its images are streamed from have changed.
    """
    folder = require_result(folder, "split", "pfs split DATASET OUT")
    info = SplitInfo.load(folder / "split.json")
    index = pq.read_table(folder / "split.parquet")
    labels = index.column("label").to_numpy()
    parts = {part: np.flatnonzero(pc.equal(index.column("split"), part)) for part in PARTS}
    device = torch.device(device)
    if info.in_memory:
        images = load_file(folder / "images.safetensors")["images"].to(device)
        return ImageSplit(parts, info, torch.from_numpy(labels.copy()).to(device), device, images=images)
    source = _source(info, index, pq.read_table(folder / "files.parquet"))
    return ImageSplit(parts, info, torch.from_numpy(labels.copy()).to(device), device, source=source)


def _source(info: SplitInfo, index: pa.Table, files: pa.Table) -> Source:
    """The source that the split was made of, checked to be the same."""
    paths, sizes, tags = (column.combine_chunks() for column in files.columns)
    then = Listing(paths, sizes.to_numpy(), tags)
    _check_unchanged(info.dataset, then)
    position = pc.index_in(index.column("file"), value_set=files.column("file")).to_numpy()
    return Source(
        uri=info.dataset,
        kind=info.kind,
        files=then,
        file=position.astype(np.int32),
        group=index.column("row_group").to_numpy(),
        row=index.column("row").to_numpy(),
        labels=index.column("label").to_numpy(),
        is_test=np.zeros(len(index), dtype=bool),
        names=None,
        class_names=info.class_names,
        flip=info.augmentation.flip,
        fingerprint=info.source_fingerprint,
        image_column=info.image_column,
        offset=index.column("offset").to_numpy() if "offset" in index.column_names else None,
        size=index.column("size").to_numpy() if "size" in index.column_names else None,
    )


def _check_unchanged(dataset: str, then: Listing) -> None:
    """UserError if a file of a split is no longer what it was."""
    now = open_storage(dataset).files()
    place = pc.index_in(then.paths, value_set=now.paths)
    there = place.is_valid()
    before, after = then.filter(there), now.take(place.drop_null().to_numpy())
    same = np.zeros(len(then), dtype=bool)
    same[there.to_numpy(False)] = (before.sizes == after.sizes) & np.asarray(pc.equal(before.tags, after.tags))
    for i in np.flatnonzero(~same)[:1]:
        state = "has changed" if there[i].as_py() else "is gone"
        raise UserError(f"{dataset}/{then[i].path} {state} since the split was made; split again")
