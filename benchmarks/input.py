"""Images a second into the network: the loaders here beside torchvision's usual ones, in turns.

    pfs split CIFAR10 work/split
    python benchmarks/input.py --split work/split --tree FOLDER --packed PACK --shrunk SHRUNK

FOLDER is a tree of JPEGs of natural sizes, PACK what ``pfs pack`` made of it, SHRUNK the same with ``--max-side 256``.
Both sides use the same number of worker processes and do the same work: crop with 4 pixels of padding and flip for
CIFAR-10; a random resized crop to 224 pixels and flip for JPEGs; normalised float32 batches. An epoch goes through the
JPEGs several times, so that few of them show what many would do.

Then the decoders that are installed (``pip install opencv-python-headless imagecodecs``) decode the JPEGs of FOLDER in
turns, in one thread.
"""

import argparse
import importlib.util
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pfs_core.data import load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.crop import Crop
from pfs_core.data.images import Images, InMemory
from pfs_core.data.open import open_source
from pfs_core.data.split_info import SplitInfo
from pfs_core.data.stream import Streamed
from pfs_core.latency.machine import machine
from pfs_core.models import build_model
from pfs_core.runtime.device import reuse_memory

CPU = torch.device("cpu")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
INFO = SplitInfo.model_construct(mean=[255 * m for m in MEAN], std=[255 * s for s in STD])


class _Pictures(Dataset):
    """CIFAR-10 as torchvision has it: arrays that become PIL images."""

    def __init__(self, images: torch.Tensor, transform: Callable) -> None:
        self.images = images.permute(0, 2, 3, 1).numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(transforms.functional.to_pil_image(self.images[i]))


def usual(dataset: Dataset, workers: int) -> Iterator[torch.Tensor]:
    """An epoch of a DataLoader."""
    for batch in DataLoader(dataset, batch_size=128, shuffle=True, num_workers=workers):
        yield batch[0] if isinstance(batch, list) else batch


def ours(images: Images) -> Iterator[torch.Tensor]:
    """An epoch of normalised batches."""
    normalise = Normalise(INFO, CPU, torch.contiguous_format)
    for batch, _ in images.epoch(128, torch.Generator().manual_seed(0)):
        yield normalise(batch)


def rate(epoch: Iterator[torch.Tensor], count: int) -> float:
    """Images a second over at least ``count`` images, without the first batch."""
    next(epoch)
    started, seen = time.perf_counter(), 0
    for batch in epoch:
        seen += len(batch)
        if seen >= count:
            break
    return seen / (time.perf_counter() - started)


def compare(name: str, a: Callable[[], Iterator], b: Callable[[], Iterator], counts: tuple[int, int], n: int) -> None:
    """A row of the table: both in turns, and the median of the ratios."""
    rates = [(rate(a(), counts[0]), rate(b(), counts[1])) for _ in range(n)]
    first, second = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(x / y for x, y in rates)
    print(f"| {name} | {first:,.0f} | {second:,.0f} | {ratio:.1f} |")


def share_of_a_step(data: InMemory, steps: int = 20) -> float:
    """Which share of ResNet-20's training steps is spent on input, the first step left out."""
    model, normalise = build_model("resnet20").train(), Normalise(INFO, CPU, torch.channels_last)
    model.to(memory_format=torch.channels_last)
    waiting = total = 0.0
    batches = data.epoch(128, torch.Generator().manual_seed(0))
    for step in range(steps + 1):
        started = time.perf_counter()
        images, labels = next(batches)
        images = normalise(images)
        waited = time.perf_counter() - started
        F.cross_entropy(model(images), labels).backward()
        if step:
            waiting += waited
            total += time.perf_counter() - started
    return waiting / total


def peak_memory(packed: Path, gigabytes: int) -> tuple[float, float]:
    """Largest resident MiB of this process and of a worker while so many GB of row groups stream by, undecoded."""
    source = open_source(str(packed))
    times = gigabytes * 10**9 // int(source.files.sizes.sum())
    count = len(source.files)
    source = replace(
        source,
        files=source.files.take(np.tile(np.arange(count), times)),
        file=np.concatenate([source.file + i * count for i in range(times)]),
        group=np.tile(source.group, times),
        row=np.tile(source.row, times),
        labels=np.tile(source.labels, times),
        is_test=np.tile(source.is_test, times),
    )
    streamed = Streamed(source, np.arange(len(source)), Crop((224, 224), 3, (0.08, 1.0)), False, CPU, workers=1)
    streamed.crop.training = lambda data: torch.zeros(3, 1, 1, dtype=torch.uint8)  # type: ignore[method-assign]
    process, peaks = psutil.Process(), [0.0, 0.0]
    for number, _ in enumerate(streamed.epoch(256, torch.Generator().manual_seed(0))):
        if number % 20 == 0:
            workers = [child.memory_info().rss for child in process.children()]
            peaks = [max(a, b / 2**20) for a, b in zip(peaks, (process.memory_info().rss, max(workers)), strict=True)]
    return peaks[0], peaks[1]


def decoders(files: list[Path], rounds: int) -> dict[str, float]:
    """Milliseconds that an image takes in each decoder, the median over the rounds."""
    known: dict[str, Callable[[bytes], object]] = {
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "simplejpeg": lambda data: simplejpeg.decode_jpeg(data, "RGB"),
        "simplejpeg, quick and less exact": lambda data: simplejpeg.decode_jpeg(
            data, "RGB", fastdct=True, fastupsample=True
        ),
    }
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        known["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        known["imagecodecs"] = imagecodecs.jpeg_decode
    images = [file.read_bytes() for file in files]
    taken: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(rounds):
        for name, decode in known.items():
            started = time.perf_counter()
            for data in images:
                decode(data)
            taken[name].append(1000 * (time.perf_counter() - started) / len(images))
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tree", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--packed", type=Path, required=True, metavar="PACK")
    parser.add_argument("--shrunk", type=Path, required=True, metavar="PACK")
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    reuse_memory()  # as in a training
    workers = os.cpu_count() or 1
    cpu = machine()
    print(f"{cpu['cpu']}, {workers} cores and workers, torch {cpu['torch']}; n = {a.rounds} rounds in turns\n")
    print("| images a second | here | torchvision | ratio |\n| --- | ---: | ---: | ---: |")
    tensor = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    cifar = load_split(a.split).part("train")
    assert isinstance(cifar, InMemory)
    pictures = _Pictures(cifar.images, transforms.Compose([transforms.RandomCrop(32, 4), *tensor]))
    compare(
        "CIFAR-10, in memory against PIL transforms",
        lambda: ours(cifar), lambda: usual(pictures, workers), (40_000, 10_000), a.rounds,
    )  # fmt: skip
    tree = ImageFolder(str(a.tree), transforms.Compose([transforms.RandomResizedCrop(224), *tensor]))
    times = -(-10_000 // len(tree))
    folder: Dataset[Any] = ConcatDataset([tree] * times)
    for name, where in (("packed", a.packed), ("packed at 256 pixels", a.shrunk), ("tree", a.tree)):
        source = open_source(str(where))
        crop = Crop((224, 224), 3, (0.08, 1.0))
        streamed = Streamed(source, np.tile(np.arange(len(source)), times), crop, True, CPU, workers)
        compare(
            f"JPEG, streamed ({name}) against ImageFolder",
            partial(ours, streamed), lambda: usual(folder, workers), (6000, 2000), a.rounds,
        )  # fmt: skip
    print(f"\nInput is {share_of_a_step(cifar):.1%} of a ResNet-20 training step in fp32, batch 128.\n")
    print("| decoder | ms an image |\n| --- | ---: |")
    for name, milliseconds in decoders(sorted(a.tree.rglob("*.jpg"))[:300], a.rounds).items():
        print(f"| {name} | {milliseconds:.2f} |")
    print("\n| streamed, GB | peak MiB, main process | peak MiB, worker |\n| ---: | ---: | ---: |")
    for gigabytes in (1, 4, 16):
        main_peak, worker = peak_memory(a.packed, gigabytes)
        print(f"| {gigabytes} | {main_peak:,.0f} | {worker:,.0f} |")


if __name__ == "__main__":
    main()
