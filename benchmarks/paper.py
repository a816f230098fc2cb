"""The paper's comparison on CIFAR-10: every method cuts to one budget, and what it leaves is trained from scratch.

    python benchmarks/paper.py run --data DIR --out DIR --experiment resnet20 --seeds 0 1 --scale 0.05
    python benchmarks/paper.py table --out DIR

--data is a folder with train.parquet and test.parquet. What is done in --out is not done again, and what was stopped
goes on where it was; several processes may share the folder if their seeds differ. --scale makes the work so many times
smaller: training images are multiplied by its square root, and so are epochs and episodes (at least 1).
"""

import argparse
import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from pfs_core.baselines import dense
from pfs_core.baselines.choose import choose
from pfs_core.data import split_dataset
from pfs_core.extraction import FILES, extract_structures
from pfs_core.files import COMPLETE, publish, read_json
from pfs_core.latency.machine import machine
from pfs_core.progress import say
from pfs_core.recipes import METHODS, MethodRecipe, recipe
from pfs_core.spec import Budget, ModelSpec
from pfs_core.structure import Structure, unexpanded_graph
from pfs_core.training.retrain import retrain

EXPERIMENTS = {
    "resnet20": ("resnet20", 0.5, 1e-5),
    "resnet56": ("resnet56", 1 / 2.1, 1e-5),
    "vgg16": ("vgg16", 1 / 2.1, 1e-4),
}
"""Network, share of the MACs, and the weight of Network Slimming's penalty."""
RESULTS = "results.parquet"


def main() -> None:
    """Run what is missing, or print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["run", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiment", default="resnet20", choices=EXPERIMENTS)
    parser.add_argument("--methods", nargs="+", default=["dense", *METHODS], choices=["dense", *METHODS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", type=float, default=1.0)
    a = parser.parse_args()
    if a.part == "run":
        for seed in a.seeds:
            base = a.out / f"{a.experiment}-scale{a.scale:g}-seed{seed}"
            split = chosen_images(a.data, base, a.scale, seed)
            for method in a.methods:
                say(f"== {base.name} {method}")
                run(a.experiment, method, seed, a.scale, split, base / method)
    frame = collected(a.out)
    if a.part == "table":
        print_tables(frame)


def chosen_images(data: Path, base: Path, scale: float, seed: int) -> Path:
    """The split of a share of the training images, drawn by ``seed``; all test images stay."""
    part = math.sqrt(scale)
    if not (base / "data" / COMPLETE).exists():
        rows = pq.read_table(data / "train.parquet")
        kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[: round(part * len(rows))])
        with publish(base / "data", "split") as folder:
            pq.write_table(rows.take(kept), folder / "train.parquet")
            pq.write_table(pq.read_table(data / "test.parquet"), folder / "test.parquet")
    if not (base / "split" / COMPLETE).exists():
        usual = recipe("cifar-official").split
        split_dataset(
            str(base / "data"),
            base / "split",
            usual.updated({"validation": round(part * usual.validation)}, "split"),
            seed,
        )
    return base / "split"


def run(experiment: str, method: str, seed: int, scale: float, split: Path, folder: Path) -> None:
    """Choose a structure and train it; ``folder`` gets ``gates``, ``structures`` and ``model``."""
    network, share, sparsity = EXPERIMENTS[experiment]
    budget, part = Budget(target=share), math.sqrt(scale)
    if method == "dense":
        spec = ModelSpec(name=network)
        structure = dense(unexpanded_graph(spec), budget, model=spec)
    else:
        if not (folder / "gates" / COMPLETE).exists():
            choose(ModelSpec(name=network), split, folder / "gates", budget, settings(method, part, sparsity), seed)
        if not (folder / "structures" / COMPLETE).exists():
            extract_structures(folder / "gates", folder / "structures", budget)
        structure = Structure.load(folder / "structures" / FILES["pruned"])
    if not (folder / "model" / COMPLETE).exists():
        usual = recipe("cifar-official").retrain
        changes = {"epochs": shrunk(usual.epochs, part), "scratch_b": False}
        retrain(structure, split, folder / "model", usual.updated(changes, "retrain"), seed)


def settings(method: str, part: float, sparsity: float) -> MethodRecipe:
    """The method's own settings, with its epochs and episodes made fewer."""
    usual = recipe("cifar-official").stage("search", {"method": method})
    changes: dict[str, Any] = {
        key: shrunk(getattr(usual, key), part)
        for key in ("epochs", "episodes", "warmup_episodes")
        if hasattr(usual, key)
    }
    if method == "network_slimming":
        changes["sparsity"] = sparsity
    return usual.updated(changes, "search")


def shrunk(count: int, part: float) -> int:
    """``count`` times ``part``, at least 1."""
    return max(1, round(count * part))


def collected(out: Path) -> pd.DataFrame:
    """A row for each cell that is done, also written to ``results.parquet``."""
    rows = []
    for done in sorted(out.glob(f"*-seed*/*/model/{COMPLETE}")):
        folder = done.parents[1]
        experiment, scale, seed = folder.parent.name.split("-")
        metrics, structure = (
            read_json(folder / "model" / "metrics.json"),
            Structure.load(folder / "model/structure.json"),
        )
        cost = read_json(folder / "gates" / "search.json")["cost"] if (folder / "gates").exists() else {}
        rows.append(
            {
                "experiment": experiment,
                "scale": float(scale.removeprefix("scale")),
                "method": folder.name,
                "seed": int(seed.removeprefix("seed")),
                "epochs": metrics["epochs"],
                "train_rows": metrics["train_rows"],
                "test_accuracy": metrics["test_accuracy"],
                "macs": metrics["macs"],
                "params": metrics["params"],
                "dense_macs": structure.reference.macs,
                "retrain_seconds": metrics["seconds"],
                **{
                    f"{stage}_{key}": cost.get(stage, {}).get(key, 0.0)
                    for stage in ("pretrain", "search")
                    for key in COST
                },
                "kept": json.dumps(kept_shares(structure)),
                "pfs_version": metrics["pfs_version"],
                "cpu": machine()["cpu"],
                "torch": torch.__version__,
            }
        )
    frame = pd.DataFrame(rows)
    frame.to_parquet(out / RESULTS)
    return frame


COST = ("seconds", "device_seconds", "forward_images", "backward_images")


def kept_shares(structure: Structure) -> list[float]:
    """The share of its published width that each prunable group keeps."""
    return [structure.widths[group.name] / group.width for group in structure.graph().prunable()]


def print_tables(frame: pd.DataFrame) -> None:
    """For each experiment: accuracy and cost of the methods, and how alike their structures are."""
    order = ["dense", *METHODS]
    for (experiment, scale), found in frame.groupby(["experiment", "scale"]):
        rows, seeds = found.train_rows.iloc[0], found.seed.nunique()
        print(f"\n{experiment}, scale {scale:g}: {rows:,} images, {found.epochs.iloc[0]} epochs, {seeds} seeds\n")
        print("| method | test accuracy | by seed | MACs | parameters | search, s | before it, s | cost to PFS |")
        print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
        whole = found.assign(cost=found.pretrain_device_seconds + found.search_device_seconds)
        pfs = whole[whole.method == "pfs"].cost.mean()
        for method in [method for method in order if method in set(found.method)]:
            of = whole[whole.method == method].sort_values("seed")
            accuracies = of.test_accuracy
            print(
                f"| {method} | {accuracies.mean():.2%} | {', '.join(f'{a:.2%}' for a in accuracies)} "
                f"| {of.macs.mean() / of.dense_macs.iloc[0]:.1%} | {of.params.mean():,.0f} "
                f"| {of.search_device_seconds.mean():,.0f} | {of.pretrain_device_seconds.mean():,.0f} "
                f"| {of.cost.mean() / pfs:.1f} |"
            )
        print_likeness(found[found.method != "dense"])


def print_likeness(found: pd.DataFrame) -> None:
    """Correlation and overlap of the kept shares, between seeds of a method and between methods at the same seed."""
    kept = {(row.method, row.seed): np.array(json.loads(row.kept)) for row in found.itertuples()}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one, other in combinations(sorted(kept), 2):
        if one[0] == other[0]:
            pairs.setdefault(f"{one[0]}, two seeds", []).append(likeness(kept[one], kept[other]))
        elif one[1] == other[1]:
            pairs.setdefault(f"{one[0]} and {other[0]}", []).append(likeness(kept[one], kept[other]))
    print("\n| structures | correlation of widths | overlap of channels |\n| --- | ---: | ---: |")
    for name, values in pairs.items():
        correlation, overlap = np.mean(values, axis=0)
        print(f"| {name} | {correlation:.2f} | {overlap:.1%} |")


def likeness(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson's correlation of two structures' kept shares, and what is in both of what is in either."""
    flat = one.std() == 0 or other.std() == 0
    correlation = float("nan") if flat else float(np.corrcoef(one, other)[0, 1])
    return correlation, float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


if __name__ == "__main__":
    main()
