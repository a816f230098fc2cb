"""Milliseconds of one gate step by memory layout and precision: why pfs_core.device.memory_format chooses as it does.

    python benchmarks/layout.py

All variants run in turn in every round; the figure is the median over the rounds. Batch 128 of 32x32 images.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.func import functional_call

from pfs_core.channels import resize, trace
from pfs_core.device import autocast, memory_format
from pfs_core.latency.machine import machine
from pfs_core.models import build_model
from pfs_core.search.gates import Gates

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
NETWORKS = (("resnet20", 1.0), ("resnet20", 1.25), ("vgg16", 1.25))


def gate_step(name: str, expand: float, precision: str, layout: torch.memory_format) -> Callable[[], None]:
    """Forward and backward of one batch to the gates."""
    model = build_model(name)
    graph = trace(model, (3, 32, 32))
    model = resize(model, graph, graph.expanded(expand)).to(memory_format=layout).train()
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
    cpu = machine()
    flags = ", ".join(cpu["flags"])
    print(f"{cpu['cpu']} ({flags}), {torch.get_num_threads()} threads, torch {cpu['torch']}, n = {rounds}\n")
    print("| network | precision | NCHW, ms | channels_last, ms | ratio | chosen |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    for name, expand in NETWORKS:
        graph = trace(build_model(name), (3, 32, 32))
        widths = [graph.expanded(expand)[group.name] for group in graph.groups if group.resizable]
        for precision in ("fp32", "bf16"):
            steps = {layout: gate_step(name, expand, precision, value) for layout, value in LAYOUTS.items()}
            taken: dict[str, list[float]] = {layout: [] for layout in steps}
            for _ in range(rounds + 1):
                for layout, step in steps.items():
                    start = time.perf_counter()
                    step()
                    taken[layout].append(1000 * (time.perf_counter() - start))
            a, b = (statistics.median(times[1:]) for times in taken.values())
            layout = memory_format(torch.device("cpu"), precision, widths)
            chosen = next(key for key, value in LAYOUTS.items() if value == layout)
            print(f"| {name} {expand}x | {precision} | {a:.0f} | {b:.0f} | {b / a:.2f} | {chosen} |", flush=True)


if __name__ == "__main__":
    main()
