"""What it costs and saves to end a search when its structure has settled (`search.settled`).

    python benchmarks/settled.py DATASET [--model resnet20] [--epochs 10] [--evaluate-every 88]

One whole search; for each setting, the evaluation at which it would have ended is looked up, and the channels that the
budget would have kept then are compared with those of the whole search: the share that is among them too, and the
correlation of the groups' widths.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pfs_core.config.recipes import cifar_sfp
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split, split_dataset
from pfs_core.latency.machine import machine
from pfs_core.methods.context import search_context
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.history import SearchHistory
from pfs_core.methods.pfs.search import gated, learn_gates
from pfs_core.structure.budget_cut import prune_to_budget
from pfs_core.training.checkpoints import Checkpoints

SETTINGS = [(tolerance, count) for tolerance in (0.1, 0.05, 0.03, 0.02) for count in (2, 3, 5)]


class Watched(SearchHistory):
    """A history that remembers what the budget would have kept at each evaluation, and when."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.masks: list[torch.Tensor] = []
        self.widths: list[list[int]] = []
        self.seconds: list[float] = []
        self._start = time.perf_counter()

    def add(self, row: dict, gates: dict) -> dict:  # type: ignore[override]
        """As the other, and remember."""
        row = super().add(row, gates)
        assert self.within_budget is not None
        self.masks.append(self.within_budget)
        widths, _ = prune_to_budget(self.graph, gates, self.budget, self.expanded)
        self.widths.append([widths[group.name] for group in self.graph.prunable()])
        self.seconds.append(time.perf_counter() - self._start)
        return row


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--evaluate-every", type=int, default=88)
    options = parser.parse_args()
    config = PfsConfig(epochs=options.epochs, evaluate_every=options.evaluate_every)
    with tempfile.TemporaryDirectory() as folder:
        split_dataset(options.dataset, Path(folder) / "split", cifar_sfp().split, 0)
        data = load_split(Path(folder) / "split")
        checkpoints = partial(Checkpoints, Path(folder) / "gates")
        spec, budget = ModelSpec(name=options.model), Budget(target=0.5)
        network, found = gated(search_context(spec, data, budget, config, 0, checkpoints))
        watched = Watched(found.graph, found.expanded, found.budget, found.target, config)
        learn_gates(network, watched, data, config, 0, record=lambda row: None)
    cpu, total = machine(), watched.seconds[-1]
    print(f"\n{cpu['cpu']}, {torch.get_num_threads()} threads, torch {cpu['torch']};", end=" ")
    print(f"{options.model}, macs=0.5, seed 0, {options.epochs} epochs in {total / 60:.1f} min,", end=" ")
    print(f"evaluated every {options.evaluate_every} steps\n")
    print("| settled | evaluations | ends after step | of the time | kept channels shared | correlation of widths |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    moved = [row["moved"] for row in watched.rows]
    for tolerance, count in SETTINGS:
        ends = [i for i in range(count - 1, len(moved)) if max(moved[i - count + 1 : i + 1]) <= tolerance]
        if not ends:
            print(f"| {tolerance} | {count} | never | | | |")
            continue
        shared = (watched.masks[ends[0]] & watched.masks[-1]).sum() / watched.masks[-1].sum()
        same = np.corrcoef(watched.widths[ends[0]], watched.widths[-1])[0, 1]
        step, share = watched.rows[ends[0]]["step"], watched.seconds[ends[0]] / total
        print(f"| {tolerance} | {count} | {step:,} | {share:.0%} | {float(shared):.3f} | {same:.3f} |")


if __name__ == "__main__":
    main()
