"""The first step: which rows train, which validate, which test."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pfs_core.data.source import ImageSource, load_source
from pfs_core.errors import UserError
from pfs_core.files import check_out, publish, read_json, require_result, write_json
from pfs_core.progress import say
from pfs_core.recipes import SplitRecipe

SCHEMA = "pfs.split/1"
PARTS = ("train", "validation", "test")


def split_dataset(dataset: str, out: str | Path, recipe: SplitRecipe = SplitRecipe(), seed: int = 0) -> dict[str, Any]:
    """Split the dataset at random and write the ``split`` folder.

    ``split.parquet`` has a row an image (file, row, label, split), ``images.safetensors`` the decoded images in the
    same order (``images``: uint8 [N, C, H, W]), ``split.json`` the rest: dataset, counts a class, seed, pixel
    statistics of the training rows, the fingerprint of the source's content and that of the split itself.

    Args:
        dataset: its address, see :func:`~pfs_core.data.source.load_source`.
        out: the folder to write.
        recipe: how many rows validate and test.
        seed: of the random choice.

    Returns:
        The content of ``split.json``.

    Raises:
        UserError: as ``load_source``; or the set is too small to split.
    """
    check_out(out, "split")
    source = load_source(dataset)
    parts = choose_rows(source, recipe, seed)
    mean, std = pixel_statistics(source.images[torch.from_numpy(parts == "train")])
    labels = source.labels.numpy()
    height = source.images.shape[2]
    info: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": dataset,
        "seed": seed,
        "fingerprint": hashlib.sha256(f"{source.fingerprint} {parts.tolist()}".encode()).hexdigest(),
        "source_fingerprint": source.fingerprint,
        "input_shape": list(source.images.shape[1:]),
        "class_names": source.class_names,
        "rows": {part: int((parts == part).sum()) for part in PARTS},
        "rows_per_class": {
            part: np.bincount(labels[parts == part], minlength=len(source.class_names)).tolist() for part in PARTS
        },
        "test_is_given": bool(source.is_test.any()),
        "mean": mean,
        "std": std,
        "augmentation": {"crop_padding": height // 8, "flip": source.flip and recipe.flip},
        "recipe": recipe.model_dump(),
    }
    table = {"file": source.files, "row": source.rows.numpy(), "label": labels, "split": parts.tolist()}
    with publish(out, "split") as folder:
        pq.write_table(pa.table(table), folder / "split.parquet")
        save_file({"images": source.images}, folder / "images.safetensors")
        write_json(folder / "split.json", info)
    rows = ", ".join(f"{info['rows'][part]:,} {part}" for part in PARTS)
    say(f"split {dataset}: {rows} images of {len(source.class_names)} classes")
    return info


def choose_rows(source: ImageSource, recipe: SplitRecipe, seed: int) -> np.ndarray:
    """``train``, ``validation`` or ``test`` for each row of ``source``, at random where it does not say itself."""
    random = np.random.default_rng(seed)
    parts = np.full(len(source.labels), "train", dtype=object)
    parts[source.is_test.numpy()] = "test"
    if not source.is_test.any():
        rows = random.permutation(len(parts))
        parts[rows[: round(recipe.test_fraction * len(parts))]] = "test"
    rows = random.permutation(np.flatnonzero(parts == "train"))
    count = min(recipe.validation, round(recipe.max_validation_fraction * len(rows)))
    parts[rows[:count]] = "validation"
    for part in PARTS:
        if not (parts == part).any():
            raise UserError(f"the dataset's {len(parts)} rows are too few: none is left for {part}")
    return parts


def pixel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel of uint8 [N, C, H, W], in units of 0-255."""
    values = images.transpose(0, 1).flatten(1)
    count = values.shape[1]
    mean, std = [], []
    for channel in values:
        histogram = torch.bincount(channel.int(), minlength=256).double()
        level = torch.arange(256, dtype=torch.float64)
        m = float((histogram * level).sum() / count)
        mean.append(m)
        std.append(max(float(((histogram * (level - m) ** 2).sum() / count).sqrt()), 1e-3))
    return mean, std


@dataclass(frozen=True)
class ImageSplit:
    """A split in memory: uint8 images [N, C, H, W] and int64 labels [N] of each part, on one device."""

    images: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    info: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.info["class_names"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        channels, height, width = self.info["input_shape"]
        return channels, height, width

    def training_rows(self, with_validation: bool) -> tuple[Tensor, Tensor]:
        """Images and labels to train on."""
        parts = ("train", "validation") if with_validation else ("train",)
        return torch.cat([self.images[p] for p in parts]), torch.cat([self.labels[p] for p in parts])


def load_split(folder: str | Path, device: torch.device | str = "cpu") -> ImageSplit:
    """Read a ``split`` folder; UserError if it is not a complete one."""
    folder = require_result(folder, "split", "pfs split DATASET OUT")
    info = read_json(folder / "split.json")
    if info.get("schema") != SCHEMA:
        raise UserError(f"{folder / 'split.json'} has schema {info.get('schema')!r}; expected {SCHEMA!r}")
    table = pq.read_table(folder / "split.parquet", columns=["label", "split"])
    parts = np.array(table.column("split").to_pylist(), dtype=object)
    labels = torch.from_numpy(table.column("label").to_numpy().copy())
    images = load_file(folder / "images.safetensors")["images"]
    rows = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in PARTS}
    return ImageSplit(
        images={part: images[index].to(device) for part, index in rows.items()},
        labels={part: labels[index].to(device) for part, index in rows.items()},
        info=info,
    )
