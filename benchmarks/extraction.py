"""What Algorithm 1 costs on ResNet-50 at 1.25x: the closed form, against building and running a network each round.

The paper's released code bisects the share of channels kept, for at most 10 rounds, and counts the MACs of each round
by building the pruned network and running it on one image. Here the same rounds are done that way (a resize, one
forward pass under PyTorch's counter) beside the exact search over the closed form.

    python benchmarks/extraction.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.channels import resize, trace
from pfs_core.channels.graph import ChannelGraph
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.latency.machine import machine
from pfs_core.models import build_model
from pfs_core.structure import extract
from pfs_core.structure.budget_cut import equal_gates

SPEC = ModelSpec(name="resnet50", num_classes=1000, input_shape=(3, 224, 224), expand=1.25)
BUDGET = Budget(target=0.5)
BUILT_ROUNDS = 10


def by_building(model: torch.nn.Module, graph: ChannelGraph, gates: dict[str, torch.Tensor]) -> None:
    """Bisect the share of channels kept, counting the MACs of a built network every round."""
    limit = BUDGET.limit(graph.cost().macs)
    values = torch.cat(list(gates.values())).sort(descending=True).values
    low, high = 0.0, 1.0
    for _ in range(BUILT_ROUNDS):
        share = (low + high) / 2
        threshold = values[int(share * (len(values) - 1))]
        kept = {name: max(1, int((scores >= threshold).sum())) for name, scores in gates.items()}
        network = resize(model, graph, graph.expanded(SPEC.expand) | kept).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.randn(1, *SPEC.input_shape))
        low, high = (share, high) if counter.get_total_flops() // 2 <= limit else (low, share)


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """The median time of a call."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    model = build_model(SPEC)
    graph = trace(model, SPEC.input_shape)
    gates = {name: torch.rand(len(ones)) for name, ones in equal_gates(graph, graph.expanded(SPEC.expand)).items()}
    cpu = machine()
    print(f"{cpu['cpu']}, {torch.get_num_threads()} threads, torch {cpu['torch']}; n = {rounds}, last row n = 1\n")
    print("| | ms |\n| --- | ---: |")
    print(f"| trace, once a network | {milliseconds(lambda: trace(model, SPEC.input_shape), rounds):.0f} |")
    exact = milliseconds(lambda: extract(graph, gates, BUDGET, model=SPEC), rounds)
    print(f"| extraction from {sum(map(len, gates.values())):,} gates, exact | {exact:.1f} |")
    built = milliseconds(lambda: by_building(model, graph, gates), 1)
    print(f"| {BUILT_ROUNDS} rounds of building and running a network | {built:.0f} |")


if __name__ == "__main__":
    main()
