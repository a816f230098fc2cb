"""Milliseconds of one gate step by memory layout: why channels_last, and why BatchNorm folds pixels.

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
from pfs_core.device import autocast, reuse_memory
from pfs_core.folded_norm import fold_norms
from pfs_core.latency.machine import machine
from pfs_core.models import build_model
from pfs_core.search.gates import Gates

NETWORKS = (("resnet20", 1.0), ("resnet20", 1.25), ("vgg16", 1.25))
VARIANTS: dict[str, tuple[torch.memory_format, Callable[[nn.Module], nn.Module]]] = {
    "NCHW": (torch.contiguous_format, lambda model: model),
    "channels_last": (torch.channels_last, lambda model: model),
    "channels_last, folded": (torch.channels_last, fold_norms),
}


def gate_step(name: str, expand: float, precision: str, variant: str) -> Callable[[], None]:
    """Forward and backward of one batch to the gates."""
    layout, fold = VARIANTS[variant]
    model = build_model(name)
    graph = trace(model, (3, 32, 32))
    model = fold(resize(model, graph, graph.expanded(expand))).to(memory_format=layout).train()
    gates = Gates(model, graph.at(graph.expanded(expand)))
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(10, (128,))

    def step() -> None:
        gates.values.grad = None
        with autocast(torch.device("cpu"), precision):
            logits = functional_call(model, gates.scales(), (images,))
        F.cross_entropy(logits.float(), labels).backward()

    return step


def main() -> None:
    """Print a Markdown table."""
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
            taken: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            for _ in range(rounds + 1):
                for variant, step in steps.items():
                    start = time.perf_counter()
                    step()
                    taken[variant].append(1000 * (time.perf_counter() - start))
            cells = [f"{statistics.median(times[1:]):.0f}" for times in taken.values()]
            print(f"| {name} {expand}x | {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
