"""Training ResNet-20 on CIFAR-10: the loop here beside the usual torchvision-style one, on the CPU.

    python benchmarks/retrain.py speed PARQUET_FOLDER
    python benchmarks/retrain.py accuracy PARQUET_FOLDER OUT

The usual one is a DataLoader with worker processes over PIL images (RandomCrop, RandomHorizontalFlip, ToTensor,
Normalize) and an fp32 network in NCHW. Both have the same initial weights, rows, SGD with Nesterov momentum and cosine.

``speed`` measures both in turns in one process. A round is so many steps of each after one that does not count; the
figure is the median over the rounds of the ratio in a round. The workers have filled their queue before either side is
measured: what they prepared meanwhile is given to the usual side, and none of its work falls into ours.

``accuracy`` trains both for a few epochs with several seeds and tests them alike. A run that is done is a JSON file in
OUT and is not made again; one that is stopped begins anew.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import ModelSpec
from pfs_core.config.stages import RetrainConfig
from pfs_core.data import ImageSplit, load_split, split_dataset
from pfs_core.data.images import InMemory
from pfs_core.latency.machine import machine
from pfs_core.latency.statistics import median_interval
from pfs_core.runtime.device import resolve_precision
from pfs_core.runtime.progress import ignore
from pfs_core.storage.artifacts import read_json, write_json
from pfs_core.structure import Structure, unexpanded_graph
from pfs_core.structure.references import dense
from pfs_core.training.fit import backward, fit, prepared, training_images
from pfs_core.training.loop_state import LoopState
from pfs_core.training.optimise import Optimisation
from pfs_core.training.retrain import results_on_test

CPU = torch.device("cpu")
FILL_SECONDS = 2.0


class Pictures(Dataset):
    """Decoded images as torchvision's datasets have them: an array that becomes a PIL image at every access."""

    def __init__(self, images: InMemory, info: dict) -> None:
        self.images = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()
        scaled = ([value / 255 for value in info[name]] for name in ("mean", "std"))
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, 4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*scaled),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(to_pil_image(self.images[i])), self.labels[i]


def network() -> Structure:
    """ResNet-20 as published."""
    spec = ModelSpec(name="resnet20")
    return dense(unexpanded_graph(spec), model=spec)


def usual(model: nn.Module, data: ImageSplit, config: RetrainConfig, epochs: int, workers: int) -> Iterator[int]:
    """Train in the usual way; gives the number of images after every step."""
    images = training_images(data, config)
    assert isinstance(images, InMemory)
    pictures = Pictures(images, dict(data.info))
    loader = DataLoader(pictures, config.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    optimiser = torch.optim.SGD(
        model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )
    scheduler = CosineAnnealingLR(optimiser, T_max=epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for batch, target in loader:
            loss = F.cross_entropy(model(batch), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step()
            yield len(target)


def ours(model: nn.Module, data: ImageSplit, config: RetrainConfig, epochs: int) -> Iterator[int]:
    """The steps of pfs_core.training.fit, one at a time; gives the number of images after every step."""
    model, forward = prepared(model, data, config)
    images, random = training_images(data, config), torch.Generator().manual_seed(0)
    optimisation = Optimisation(model, config, epochs * images.steps(config.batch_size))
    progress = LoopState(CPU, random)
    for epoch in range(1, epochs + 1):
        for batch, target in images.epoch(config.batch_size, random, progress.begin(epoch)):
            sums = backward(model, forward, batch, target, len(target), config)
            optimisation.step()
            progress.add(sums, len(target))
            yield len(target)


def rate(steps: Iterator[int], count: int) -> float:
    """Images a second over ``count`` steps, after one that does not count."""
    next(steps)
    started = time.perf_counter()
    images = sum(itertools.islice(steps, count))
    return images / (time.perf_counter() - started)


def speed(data: ImageSplit, config: RetrainConfig, workers: int, rounds: int, steps: int) -> None:
    """Print images a second of both, and their ratio."""
    size, needed = config.batch_size, rounds * (steps + 1)
    epochs = 1 + needed // training_images(data, config).steps(size)
    sides = (
        ours(network().build(), data, config, epochs),
        usual(network().build(), data, config, epochs, workers),
    )
    next(sides[1])  # starts the workers
    rates = []
    for _ in range(rounds):
        found = []
        for side in sides:
            time.sleep(FILL_SECONDS)
            found.append(rate(side, steps))
        rates.append(found)
    a, b = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = torch.tensor([x / y for x, y in rates]).numpy()
    low, high = median_interval(ratios)
    print(f"Batch {size}; n = {rounds} rounds in turns, {steps} steps each; {resolve_precision('auto', CPU)} here\n")
    print("| images a second, here | torchvision-style | ratio, median of the rounds' | 95% interval | range |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    spread = f"{ratios.min():.2f}-{ratios.max():.2f}"
    print(f"| {a:,.0f} | {b:,.0f} | {statistics.median(ratios.tolist()):.2f} | {low:.2f}-{high:.2f} | {spread} |")


def run(side: str, data: ImageSplit, config: RetrainConfig, seed: int, workers: int) -> dict[str, float]:
    """Train once and test."""
    torch.manual_seed(seed)
    model = network().build()
    started = time.perf_counter()
    if side == "here":
        model.load_state_dict(fit(model, side, data, config, config.epochs, seed, ignore).last)
    else:
        for _ in usual(model, data, config, config.epochs, workers):
            pass
    minutes = (time.perf_counter() - started) / 60
    return {"test_accuracy": results_on_test(model, data)[0].test_accuracy, "minutes": minutes}


def accuracy(data: ImageSplit, config: RetrainConfig, workers: int, seeds: int, out: Path) -> None:
    """Make the runs that are missing, then print what all have reached."""
    names = {"here": f"here ({resolve_precision('auto', CPU)})", "usual": "torchvision-style (fp32)"}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in names}
    for seed, side in itertools.product(range(seeds), names):
        file = out / f"{side}-{config.epochs}-epochs-seed-{seed}.json"
        if not file.exists():
            done = run(side, data, config, seed, workers)
            write_json(file.with_suffix(".part"), done)
            file.with_suffix(".part").replace(file)
        found[side].append(read_json(file))
    print(f"{config.epochs} epochs on all training images, tested once each; n = {seeds} seeds\n")
    print("| | test accuracy, mean | each | minutes, mean |\n| --- | ---: | ---: | ---: |")
    for side, name in names.items():
        accuracies = [one["test_accuracy"] for one in found[side]]
        each = ", ".join(f"{value:.2%}" for value in accuracies)
        minutes = statistics.mean(one["minutes"] for one in found[side])
        print(f"| {name} | {statistics.mean(accuracies):.2%} | {each} | {minutes:.1f} |")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("speed", "accuracy"))
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path, nargs="?", help="of accuracy: what is done")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--rounds", type=int, default=15, help="of speed")
    parser.add_argument("--steps", type=int, default=30, help="a round")
    parser.add_argument("--epochs", type=int, default=2, help="of accuracy")
    parser.add_argument("--seeds", type=int, default=3, help="of accuracy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    if a.measure == "accuracy" and a.out is None:
        parser.error("accuracy needs OUT")
    torch.set_num_threads(a.threads)
    config = recipe("cifar-sfp").stage("retrain", {"epochs": a.epochs, "schedule": "cosine"})
    with TemporaryDirectory() as folder:
        split_dataset(a.dataset, Path(folder) / "split")
        data = load_split(Path(folder) / "split")
    cpu = machine()
    print(f"{cpu['cpu']}, {os.cpu_count()} cores, {a.threads} threads, {a.workers} workers, torch {cpu['torch']}")
    if a.measure == "speed":
        speed(data, config, a.workers, a.rounds, a.steps)
    else:
        a.out.mkdir(parents=True, exist_ok=True)
        accuracy(data, config, a.workers, a.seeds, a.out)


if __name__ == "__main__":
    main()
