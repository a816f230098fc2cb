"""Milliseconds of one gate step by memory layout: why channels_last, folded BatchNorm and products on small maps.

    python benchmarks/layout.py

All variants run in turn in every round; the figure is the median over the rounds. Batch 128 of 32x32 images.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from pfs_core.channels import resize, trace
from pfs_core.latency.machine import machine
from pfs_core.methods.pfs.gates import Gates
from pfs_core.models import build_model
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.frozen_conv import freeze_convolutions
from pfs_core.runtime.device import autocast, reuse_memory

NETWORKS = (("resnet20", 1.0), ("resnet20", 1.25), ("vgg16", 1.25))
VARIANTS: dict[str, tuple[torch.memory_format, Callable[[nn.Module], nn.Module]]] = {
    "NCHW": (torch.contiguous_format, lambda model: model),
    "channels_last": (torch.channels_last, lambda model: model),
    "channels_last, folded": (torch.channels_last, fold_norms),
    "and frozen": (torch.channels_last, lambda model: freeze_convolutions(fold_norms(model))),
}


def gate_step(name: str, expand: float, precision: str, variant: str) -> Callable[[], None]:
    """Forward and backward of one batch to the gates."""
    layout, fold = VARIANTS[variant]
    model = build_model(name)
    graph = trace(model, (3, 32, 32))
    model = fold(resize(model, graph, graph.expanded(expand))).to(memory_format=layout).train()
    gates = Gates(model, graph.with_widths(graph.expanded(expand)))
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(10, (128,))

    def step() -> None:
        gates.values.grad = None
        with autocast(torch.device("cpu"), precision):
            logits = functional_call(model, gates.scales(), (images,))
        F.cross_entropy(logits.float(), labels).backward()

    return step


def norm_step(width: int, fold: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    """BatchNorm alone, forward and backward, over 128 maps of 32x32 in channels_last."""
    norm = fold(nn.Sequential(nn.BatchNorm2d(width))).train()
    images = torch.randn(128, width, 32, 32, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()

    def step() -> None:
        norm(images).float().sum().backward()

    return step


def conv_step(width: int, side: int, freeze: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    """A 3x3 convolution in bf16 alone, forward and backward to its input, over 128 maps of ``side`` x ``side``."""
    conv: nn.Module = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False)).bfloat16().requires_grad_(False)
    conv = freeze(conv.to(memory_format=torch.channels_last))
    images = torch.randn(128, width, side, side, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()

    def step() -> None:
        conv(images).float().sum().backward()

    return step


def medians(steps: dict[str, Callable[[], None]], rounds: int) -> list[float]:
    """Milliseconds of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append(1000 * (time.perf_counter() - start))
    return [statistics.median(times[1:]) for times in taken.values()]


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    reuse_memory()
    cpu = machine()
    flags = ", ".join(cpu["flags"])
    print(f"{cpu['cpu']} ({flags}), {torch.get_num_threads()} threads, torch {cpu['torch']}, n = {rounds}\n")
    print(f"| network | precision | {' | '.join(f'{variant}, ms' for variant in VARIANTS)} |")
    print(f"| --- | --- |{' ---: |' * len(VARIANTS)}")
    for name, expand in NETWORKS:
        for precision in ("fp32", "bf16"):
            steps = {variant: gate_step(name, expand, precision, variant) for variant in VARIANTS}
            cells = [f"{ms:.0f}" for ms in medians(steps, rounds)]
            print(f"| {name} {expand}x | {precision} | {' | '.join(cells)} |", flush=True)
    print("\n| BatchNorm over | channels_last, ms | channels_last, folded, ms |\n| ---: | ---: | ---: |")
    for width in (16, 20, 40, 80):
        steps = {"plain": norm_step(width, lambda module: module), "folded": norm_step(width, fold_norms)}
        print(f"| 128x{width}x32x32 | {' | '.join(f'{ms:.1f}' for ms in medians(steps, 5 * rounds))} |", flush=True)
    print("\n| 3x3 convolution of | torch's, ms | frozen, ms |\n| ---: | ---: | ---: |")
    for width, side in ((640, 2), (320, 2), (640, 4), (450, 4), (350, 4)):
        steps = {
            "plain": conv_step(width, side, lambda module: module),
            "frozen": conv_step(width, side, freeze_convolutions),
        }
        print(f"| 128x{width}x{side}x{side} | {' | '.join(f'{ms:.1f}' for ms in medians(steps, rounds))} |", flush=True)


if __name__ == "__main__":
    main()
