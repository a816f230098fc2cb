"""The first step: which rows train, which validate, which test."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.checked_once import images_checked_once
from pfs_core.data.choice import LEFT_OUT, choose_rows, drawn_away
from pfs_core.data.dataset import Source
from pfs_core.data.decode import remarks_on
from pfs_core.data.inputs import inputs_of
from pfs_core.data.leaks import comes_in_parts, digest, in_two_parts
from pfs_core.data.left_out import LeftOut, summary
from pfs_core.data.open import notes_without, open_source
from pfs_core.data.reading import Readings, load_images
from pfs_core.data.split_info import PARTS, LeftOutFiles, SkippedImage, SplitInfo
from pfs_core.errors import UserError
from pfs_core.runtime.cost import StepTimer
from pfs_core.storage.artifacts import check_out, publish

logger = logging.getLogger(__package__)

_LARGE = 16
"""Images of so many times the pixels of the input are large: most of the time of reading them is that of decoding."""
_PACKED = 8 / 7
"""The shorter side of packed images, in sides of the input: 256 pixels for 224."""
_WRITTEN = 2**17
_INDEX = pa.schema(
    {"file": pa.string(), "row_group": pa.int32(), "row": pa.int64(), "label": pa.int64(), "split": pa.string()}
)
_SPANS = pa.schema({"offset": pa.int64(), "size": pa.int64()})


def split_dataset(dataset: str, out: str | Path, config: SplitConfig = SplitConfig(), seed: int = 0) -> SplitInfo:
    """Split the dataset at random and write the ``split`` folder.

    ``split.parquet`` is an index with one row per image (file, row_group, row, label, split, and of tar and Arrow files
    also offset and size), ``files.parquet`` the files with size and tag, ``split.json`` the rest
    (:class:`~pfs_core.data.split_info.SplitInfo`). Every image is decoded once. Where ``config.image_size`` is None,
    ``images.safetensors`` has the decoded images in the order of the index (``images``: uint8 [N, C, H, W]); else they
    stay where they are. ``dataset.html`` shows some images of each class and how many there are.

    Args:
        dataset: its address, see :func:`~pfs_core.data.open.open_source`.
        out: the folder to write.
        config: see :class:`SplitConfig`.
        seed: of the random choice, which depends neither on the order of files nor, where rows have names, on how they
            are spread over files.

    Returns:
        The content of ``split.json``.

    Raises:
        UserError: as ``open_source``; an image cannot be decoded; or the set is too small to split.
    """
    check_out(out, "split")
    timer = StepTimer()
    source = open_source(dataset, config)
    images, skipped, remarks, pixels, shared = _read(source, config)
    usable = np.ones(len(source), dtype=bool)
    usable[list(skipped)] = False
    notes = [*notes_without(source, usable), *_unused_settings(source, config)]
    if remarks:
        notes.append(remarks_on(remarks, config.background))
    if shared:
        count, one, other = shared
        notes.append(
            f"{count:,} image{'s are' if count > 1 else ' is'} in two parts, such as {source.place(one)} and "
            f"{source.place(other)}: what is tested should not be trained on"
        )
    notes += _large(source, pixels // max(int(usable.sum()), 1), config)
    parts = choose_rows(source, config, seed, usable, skipped)
    notes += drawn_away(source, parts)
    inputs = inputs_of(source, images, parts, config, seed)
    info = SplitInfo(
        dataset=source.uri,
        kind=source.kind,
        in_memory=images is not None,
        seed=seed,
        fingerprint=_fingerprint(source, parts),
        source_fingerprint=source.fingerprint,
        input_shape=inputs.shape,
        class_names=source.class_names,
        rows={part: int((parts == i).sum()) for i, part in enumerate(PARTS)},
        rows_per_class={
            part: np.bincount(source.labels[parts == i], minlength=len(source.class_names)).tolist()
            for i, part in enumerate(PARTS)
        },
        test_is_given=bool(source.is_test.any()),
        validation_is_given=source.is_validation is not None,
        notes=notes,
        left_out=[LeftOutFiles(**files._asdict()) for files in source.left_out],
        image_column=source.image_column,
        skipped=[SkippedImage(image=source.place(i), reason=reason) for i, reason in skipped.items()],
        mean=inputs.mean,
        std=inputs.std,
        augmentation=inputs.augmentation,
        preparation=inputs.preparation,
        config=config,
    )
    with publish(out, "split") as folder:
        write_index(folder, source, parts)
        if images is not None:
            kept = images[torch.from_numpy(usable)] if skipped else images.contiguous()
            save_file({"images": kept}, folder / "images.safetensors")
        info.save(folder / "split.json")
        timer.write(folder)
        (folder / "dataset.html").write_text(
            _page(info, source.labels, inputs.samples, source.left_out), encoding="utf-8"
        )
    _say(dataset, info, source.left_out)
    return info


def _say(dataset: str, info: SplitInfo, left_out: Sequence[LeftOut]) -> None:
    """Log what the dataset was taken for, and its rows."""
    for note in info.notes:
        logger.info(f"split {note}")
    rows = ", ".join(f"{count:,} {part}" for part, count in info.rows.items())
    bad = f"; {len(info.skipped):,} images left out that cannot be used (see split.json)" if info.skipped else ""
    beside = f"; {summary(left_out)}" if left_out else ""
    logger.info(f"split {dataset}: {rows} images of {len(info.class_names)} classes{bad}{beside}")


def _read(source: Source, config: SplitConfig) -> Readings:
    """Decode all images, and keep them if they are to be in memory."""
    skip = config.on_bad == "skip"
    if source.images is not None:
        if config.image_size:
            raise UserError(f"split.image_size: {source.uri} is a set of small images that is kept in memory as it is")
        images = _with_channels(source.images, config.channels)
        return Readings(images, {}, Counter(), in_two_parts=_in_two_parts(source, source.images))
    if config.image_size:
        return images_checked_once(source, skip)
    return load_images(source, config.channels, skip, config.background)


def _in_two_parts(source: Source, images: Tensor) -> tuple[int, ...]:
    if not comes_in_parts(source):
        return ()
    return in_two_parts(source, np.array([digest(image.numpy().tobytes()) for image in images], np.uint64))


def _large(source: Source, pixels: int, config: SplitConfig) -> list[str]:
    """Say how to read images faster that have many times the pixels of the input.

    Args:
        source: the dataset.
        pixels: of an image, on average; 0 where they were not counted.
        config: its settings.
    """
    height, width = config.input_size or (1, 1)
    if source.kind != "tree" or pixels < _LARGE * height * width:
        return []
    side = math.ceil(max(height, width) * _PACKED)
    return [
        f"images have {pixels:,} pixels on average, and {height}x{width} are used: `pfs pack --max-side {side}` "
        "shrinks them once, and every epoch reads them faster"
    ]


def _unused_settings(source: Source, config: SplitConfig) -> list[str]:
    """Say which settings of the validation part do nothing, as the dataset has one."""
    drawn = {"split.validation_per_class": config.validation_per_class, "split.stratified": config.stratified}
    unused = [name for name, value in drawn.items() if value]
    return [
        f"{name} is not used: the dataset has a validation part" for name in unused if source.is_validation is not None
    ]


def _with_channels(images: Tensor, channels: int | None) -> Tensor:
    if channels == 3 and images.shape[1] == 1:
        return images.repeat(1, 3, 1, 1)
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([19595, 38470, 7471]).view(1, 3, 1, 1)  # luma of ITU-R BT.601 in 1/65536, as Pillow's
        return ((images.int() * weights).sum(1, keepdim=True) + 2**15 >> 16).to(torch.uint8)
    return images


def _page(
    info: SplitInfo, labels: np.ndarray, samples: Sequence[tuple[int, Tensor]], left_out: Sequence[LeftOut]
) -> str:
    from pfs_core.data.page import dataset_page  # loads matplotlib, which training needs not

    rows = ", ".join(f"{count:,} {part}" for part, count in info.rows.items())
    facts = [
        f"{rows} images of {len(info.class_names)} classes",
        *info.notes,
        f"{'x'.join(map(str, info.input_shape))} to the network; mean {info.mean}, deviation {info.std}",
        f"fingerprint {info.fingerprint}, seed {info.seed}",
    ]
    faults = [f"{files} were left out, such as {files.example}" for files in left_out]
    faults += [f"{image.image} was left out: {image.reason}" for image in info.skipped]
    shown = [(int(labels[i]), image) for i, image in samples]
    return dataset_page(info.dataset, facts, info.class_names, info.rows_per_class, shown, faults=faults)


def _fingerprint(source: Source, parts: np.ndarray) -> str:
    names = [*PARTS, ""]
    chosen = [names[part] for part in parts.tolist()]
    return hashlib.sha256(f"{source.fingerprint} {chosen}".encode()).hexdigest()


def write_index(folder: Path, source: Source, parts: np.ndarray) -> None:
    """Write ``split.parquet`` and ``files.parquet``, one row group at a time."""
    texts = pa.array(PARTS)
    rows = np.flatnonzero(parts != LEFT_OUT)
    schema = _INDEX if source.offset is None else pa.schema([*_INDEX, *_SPANS])
    with pq.ParquetWriter(folder / "split.parquet", schema) as writer:
        for some in np.split(rows, range(_WRITTEN, len(rows), _WRITTEN)):
            columns = [
                source.files.paths.take(pa.array(source.file[some])),
                source.group[some],
                source.row[some],
                source.labels[some],
                texts.take(pa.array(parts[some])),
            ]
            if source.offset is not None and source.size is not None:
                columns += [source.offset[some], source.size[some]]
            writer.write_table(pa.table(columns, schema=schema))
    files = pa.table({"file": source.files.paths, "size": source.files.sizes, "tag": source.files.tags})
    pq.write_table(files, folder / "files.parquet", row_group_size=_WRITTEN)
