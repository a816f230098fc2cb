"""Gradient norms at the gates of MobileNet-V1 and V2, behind the last BatchNorm and where the released code has them.

    pfs split CIFAR10 work/split && python benchmarks/placement.py --split work/split

At initialisation, all gates 1, on batches of 128 training images doubled to 64x64. A figure is the root mean square of
d cross-entropy / d gate over the gates and the batches, averaged over seeds; groups that a depthwise convolution
follows are apart from the others.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call

from pfs_core.channels import resize, trace
from pfs_core.channels.tracer import Placement
from pfs_core.config.spec import ModelSpec
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.images import InMemory
from pfs_core.latency.machine import machine
from pfs_core.methods.pfs.gates import Gates
from pfs_core.models import build_model

SIZE = 64
KINDS = ("followed by a depthwise convolution", "others")


def squares(name: str, placement: Placement, data: ImageSplit, seed: int, batches: int) -> dict[str, float]:
    """Mean square of the gradients at the gates, for both kinds of groups."""
    torch.manual_seed(seed)
    spec = ModelSpec(name=name, num_classes=data.num_classes, input_shape=(3, SIZE, SIZE))
    model = build_model(spec)
    graph = trace(model, spec.input_shape, placement=placement)
    model = resize(model, graph, graph.expanded(1.25)).train()
    graph = graph.with_widths(graph.expanded(1.25))
    gates = Gates(model, graph)
    depthwise = {segment.group for axis in graph.axes if axis.role == "depthwise" for segment in axis.segments}
    normalise = Normalise(data.info, torch.device("cpu"), torch.contiguous_format)
    training = data.part("train")
    assert isinstance(training, InMemory)
    order = torch.randperm(len(training))
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for rows in order[: 128 * batches].split(128):
        images = F.interpolate(normalise(training.images[rows]), size=(SIZE, SIZE))
        gates.values.grad = None
        logits = functional_call(model, gates.scales(), (images,))
        F.cross_entropy(logits, training.labels[rows]).backward()
        assert gates.values.grad is not None
        parts = gates.values.grad.split([graph.group(group).gate_count for group in gates.groups])
        for group, part in zip(gates.groups, parts, strict=True):
            kind = KINDS[group not in depthwise]
            sums[kind] += part.square().sum().item()
            counts[kind] += part.numel()
    return {kind: sums[kind] / counts[kind] for kind in KINDS}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", type=Path, required=True, metavar="DIR")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    data = load_split(a.split)
    cpu = machine()
    print(f"{cpu['cpu']}, torch {cpu['torch']}; {a.batches} batches, n = {a.seeds} seeds\n")
    print("| network | gates | last | official | official / last |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in ("mobilenet_v1", "mobilenet_v2"):
        norms = {
            placement: [squares(name, placement, data, seed, a.batches) for seed in range(a.seeds)]
            for placement in ("last", "official")
        }
        for kind in KINDS:
            last, official = (
                sum(run[kind] ** 0.5 for run in norms[placement]) / a.seeds for placement in ("last", "official")
            )
            print(f"| {name} | {kind} | {last:.2e} | {official:.2e} | {official / last:.4f} |")


if __name__ == "__main__":
    main()
