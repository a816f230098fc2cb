"""A gate step here against a plain re-expression of the paper's released method, over the course of a search.

    python benchmarks/search.py DATASET [--networks resnet20 ...] [--official FOLDER] [--epochs 10]

The search runs as `pfs search` does. At some points of it the same batch is given to one step of each side in turn, and
the times are compared pair by pair. The plain side multiplies by the gates behind BatchNorm, in fp32 and NCHW, and
computes the weights' gradients too, as the released code does; its steps take the same time from first to last. With
--official, a checkout of the released code (frankwang345/pruning-from-scratch) runs beside them.
"""

import argparse
import importlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfs_core.channels import ChannelGraph, resize, trace
from pfs_core.config.recipes import cifar_sfp
from pfs_core.data import load_split, split_dataset
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.latency.machine import machine
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.models import build_model
from pfs_core.runtime.device import native_bf16, resolve_precision, reuse_memory

Step = Callable[[Tensor, Tensor], None]
NETWORKS = ("resnet20", "resnet56", "vgg16")
OFFICIAL = {"resnet20": 20, "resnet56": 20, "vgg16_bn": 80}
LR, GAMMA, TARGET, BATCH = 0.01, 0.5, 0.5, 128
POINTS = (0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1)
"""Shares of the search; at all but the last one the sides are compared."""


class Multiplied(nn.Module):
    """A BatchNorm whose output is multiplied by gates."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.gate = nn.Parameter(torch.ones(norm.num_features))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        return self.gate.view(1, -1, 1, 1) * self.norm(x)


def plain(name: str) -> Step:
    """The method as published, in plain torch."""
    model, graph = expanded(name)
    gates = []
    for layer in (layer for group in graph.prunable() for layer in group.gates):
        parent, _, leaf = layer.rpartition(".")
        norm = model.get_submodule(layer)
        assert isinstance(norm, nn.BatchNorm2d)
        multiplied = Multiplied(norm)
        setattr(model.get_submodule(parent), leaf, multiplied)
        gates.append(multiplied.gate)
    return step_of(model.train(), gates)


def official(name: str, folder: Path) -> Step:
    """The released code's own modules."""
    sys.path.insert(0, str(folder))
    gate, models = importlib.import_module("gate"), importlib.import_module("models")
    gate.default_graph.clear_tensor_list("gates_params")
    kind = ("convbn", "ConvBNReLU") if name.startswith("vgg") else ("basicblock", "BasicBlock")
    key = "vgg16_bn" if name == "vgg16" else name
    model = getattr(models, key)(10, OFFICIAL[key])
    gate.apply_func(model, kind[1], getattr(gate, f"init_{kind[0]}_gates"))
    gate.apply_func(model, kind[1], getattr(gate, f"collect_{kind[0]}_gates"))
    gate.replace_func(model, kind[1], getattr(gate, f"new_{kind[0]}_forward"))
    return step_of(model.train(), list(gate.default_graph.get_tensor_list("gates_params")))


def step_of(model: nn.Module, gates: list[nn.Parameter]) -> Step:
    """One step on fp32 images in NCHW."""
    optimiser = torch.optim.Adam(gates, lr=LR)

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad()
        regulariser = GAMMA * (torch.cat(tuple(gates)).abs().mean() - TARGET) ** 2
        (F.cross_entropy(model(images), labels) + regulariser).backward()
        optimiser.step()
        for each in gates:
            each.data.clamp_(0, 1)

    return step


def ours(network: GatedNetwork) -> Step:
    """The step of :func:`pfs_core.methods.pfs.search.learn_gates`."""

    def step(images: Tensor, labels: Tensor) -> None:
        loss = F.cross_entropy(network(images), labels)
        network.step(loss + GAMMA * (network.mean() - TARGET) ** 2)

    return step


def expanded(name: str) -> tuple[nn.Module, ChannelGraph]:
    """The network at 1.25x, and its graph."""
    torch.manual_seed(0)
    model = build_model(name)
    graph = trace(model, (3, 32, 32))
    widths = graph.expanded(1.25)
    return resize(model, graph, widths), graph.with_widths(widths)


def batches(images: Images) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches without end."""
    random = torch.Generator().manual_seed(0)
    while True:
        yield from images.epoch(BATCH, random)


def seconds(step: Step, images: Tensor, labels: Tensor) -> float:
    """What a step takes."""
    start = time.perf_counter()
    step(images, labels)
    return time.perf_counter() - start


def measure(name: str, data: Any, steps: int, rounds: int, folder: Path | None) -> None:
    """A line of the table at every point of the search, and one for all of it."""
    cpu = torch.device("cpu")
    network = GatedNetwork(*expanded(name), resolve_precision("auto", cpu), LR)
    sides = {"ours": ours(network), "plain": plain(name)}
    sides |= {"official": official(name, folder)} if folder else {}
    normalise = {key: Normalise(data.info, cpu, torch.contiguous_format) for key in sides}
    normalise["ours"] = Normalise(data.info, cpu, network.layout)
    whole = {key: [0.0] * rounds for key in sides}
    stream = batches(data.part("train"))
    for share, until in itertools.pairwise(POINTS):
        while network.steps < share * steps:
            images, labels = next(stream)
            sides["ours"](normalise["ours"](images), labels)
        nonzero = network.nonzero()
        times: dict[str, list[float]] = {key: [] for key in sides}
        for _ in range(rounds + 1):
            images, labels = next(stream)
            for key, step in sides.items():
                times[key].append(seconds(step, normalise[key](images), labels))
        times = {key: values[1:] for key, values in times.items()}
        whole = {key: [a + (until - share) * b for a, b in zip(whole[key], times[key], strict=True)] for key in sides}
        print(line(name, f"{share * steps:,.0f}", f"{nonzero:.2f}", times))
    print(line(name, "mean", "", whole))


def line(name: str, steps: str, nonzero: str, times: dict[str, list[float]]) -> str:
    """Medians in ms, and the median and range of the paired ratios."""
    cells = [name, steps, nonzero]
    cells += [f"{1000 * statistics.median(values):.0f}" for values in times.values()]
    for key in list(times)[1:]:
        ratios = sorted(other / mine for other, mine in zip(times[key], times["ours"], strict=True))
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="CIFAR-10")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--official", type=Path, metavar="FOLDER")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    reuse_memory()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        split_dataset(options.dataset, Path(folder) / "split", cifar_sfp().split, 0)
        data = load_split(Path(folder) / "split", torch.device("cpu"))
        steps = int(options.epochs * data.part("train").steps(BATCH))
        cpu = machine()
        native = "native bf16" if native_bf16(torch.device("cpu")) else "no native bf16"
        print(f"{cpu['cpu']} ({native}), {torch.get_num_threads()} threads, torch {cpu['torch']}, ", end="")
        print(f"n = {options.rounds} pairs a row\n")
        sides = ["ours", "plain", *(["official"] if options.official else [])]
        heads = ["network", "steps", "non-zero gates", *(f"{side}, ms" for side in sides)]
        heads += [f"{side} / ours (range)" for side in sides[1:]]
        print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
        for name in options.networks:
            measure(name, data, steps, options.rounds, options.official)


if __name__ == "__main__":
    main()
