"""Is the default cut as accurate as the paper's, at the same MACs and at the same time? Trained on CIFAR-10 for both.

    python benchmarks/equal_time.py run --dataset DATASET --out DIR --network resnet20 --seeds 0 1 2
    python benchmarks/equal_time.py collect --out DIR --results FILE
    python benchmarks/equal_time.py table --results FILE [--docs PAGE]

A cell is one cut and one seed of a network: gates are learned for the recipe's whole search, cut, and the network that
is left is trained as in the recipe `fast` (15 epochs with a cosine) on the images that the search did not validate on.

    dense             the network as it is published
    paper-macs        1.25 times as wide everywhere, cut to any width, at macs=0.5
    default-macs      residual streams as they were, cut in the blocks of ONNX Runtime, at macs=0.5
    blocks-macs       the same, and no residual branch is left out
    uniform-macs      the same MACs in the same blocks with every width cut alike, which takes no search
    paper-latency     the first at the latency of --latency, one thread of ONNX Runtime
    default-latency   the second at that latency
    blocks-latency    the third at that latency
    uniform-latency   uniform widths in the same blocks at that latency
    all-latency       the third, with the streams pruned as well (`search.policy=all`)
    widened-latency   the same from streams that are 1.25 times as wide

Structures of a seed are made before its trainings and measured beside each other, so that a machine need be left alone
for the first half hour only. A cut that does not exist is said and left out. What is done in --out is not done again,
and what was stopped resumes where it was; processes may share --out if their networks or seeds differ, once the first
has made the split.
"""

import argparse
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper import check_as_before, note_machine
from paper_tables import add_rows, cells_command, difference

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig, LatencyConfig
from pfs_core.data import split_dataset
from pfs_core.errors import UserError
from pfs_core.latency.benchmarking import benchmark
from pfs_core.latency.results import LatencyResult
from pfs_core.methods.config import MethodConfig
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.methods.uniform.config import UniformConfig
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import COMPLETE, read_json
from pfs_core.structure import FILES, Structure
from pfs_core.training.retrain import retrain

HALF = Budget(target=0.5)
KEY = ("network", "latency", "cut", "seed")
"""What a cell is known by."""


@dataclass(frozen=True)
class Cut:
    """Gates learned as ``search`` says, cut as ``extract`` says, at half the MACs or at a latency."""

    gates: str
    search: MethodConfig
    extract: ExtractConfig
    metric: str
    structure: str = "pruned"


PAPER, DEFAULT, ALL, WIDENED, NONE = (
    PfsConfig(),
    PfsConfig(expand_stream=1.0),
    PfsConfig(expand_stream=1.0, policy="all"),
    PfsConfig(policy="all"),
    UniformConfig(expand_stream=1.0),
)
ANY_WIDTH, IN_BLOCKS = (ExtractConfig(blocks=blocks, runtime="onnxruntime", threads=1) for blocks in (1, "auto"))
BRANCHES_STAY = ExtractConfig(blocks="auto", runtime="onnxruntime", threads=1, floor=0.01)
CUTS = {
    "dense": Cut("uniform", NONE, ANY_WIDTH, "macs", "dense"),
    "paper-macs": Cut("paper", PAPER, ANY_WIDTH, "macs"),
    "default-macs": Cut("default", DEFAULT, IN_BLOCKS, "macs"),
    "blocks-macs": Cut("default", DEFAULT, BRANCHES_STAY, "macs"),
    "uniform-macs": Cut("uniform", NONE, IN_BLOCKS, "macs", "uniform"),
    "paper-latency": Cut("paper", PAPER, ANY_WIDTH, "latency"),
    "default-latency": Cut("default", DEFAULT, IN_BLOCKS, "latency"),
    "blocks-latency": Cut("default", DEFAULT, BRANCHES_STAY, "latency"),
    "uniform-latency": Cut("uniform", NONE, IN_BLOCKS, "latency", "uniform"),
    "all-latency": Cut("all", ALL, BRANCHES_STAY, "latency"),
    "widened-latency": Cut("widened", WIDENED, BRANCHES_STAY, "latency"),
}


def main() -> None:
    """Run what is missing, collect what is done, or print it."""
    cells_command(__doc__, add_options, run_cells, collect, tables)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what cells are known by."""
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--latency", type=float, default=0.7, help="share of the dense network's")
    parser.add_argument("--cuts", nargs="+", default=list(CUTS), choices=list(CUTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="of searches and trainings, to try this command")


def run_cells(a: argparse.Namespace) -> None:
    """Run every cell that is asked for and not done."""
    logging.getLogger("pfs_core").setLevel(logging.INFO)
    split = a.out / "split"
    if not (split / COMPLETE).exists():
        split_dataset(a.dataset, split, recipe("standard").split)
    spec = ModelSpec(name=a.network)
    training = recipe("fast").retrain.updated({"epochs": a.epochs} if a.epochs else {}, "retrain")
    for seed in a.seeds:
        base = a.out / f"{a.network}-{a.latency:g}-seed{seed}"
        check_as_before(base, "epochs", a.epochs)
        note_machine(base)
        structures = {}
        for name in [name for name in CUTS if name in a.cuts]:
            try:
                structures[name] = found(base, name, spec, split, a, seed)
            except UserError as error:
                print(f"== {base.name} {name}: {error}", flush=True)
        if structures:
            measure(base)
        for name, structure in structures.items():
            if not (base / name / "model" / COMPLETE).exists():
                print(f"== {base.name} {name}", flush=True)
                retrain(structure, split, base / name / "model", training, seed)


def found(base: Path, name: str, spec: ModelSpec, split: Path, a: argparse.Namespace, seed: int) -> Structure:
    """The structure of a cell, searched for and cut if that is not done.

    Raises:
        UserError: there is none at the budget.
    """
    cut, gates, out = CUTS[name], base / "gates" / CUTS[name].gates, base / name / "structures"
    if not (gates / COMPLETE).exists():
        print(f"== {base.name} gates of {cut.gates}", flush=True)
        shorter = a.epochs and isinstance(cut.search, PfsConfig)
        search(spec, split, gates, HALF, cut.search.updated({"epochs": a.epochs} if shorter else {}, "search"), seed)
    if not (out / COMPLETE).exists():
        budget = HALF if cut.metric == "macs" else Budget(metric="latency", target=a.latency)
        extract_structures(gates, out, budget, cut.extract)
    return Structure.load(out / FILES[cut.structure])


def measure(base: Path) -> None:
    """Measure all structures of a seed beside each other, and anew where one was not there the last time."""
    cuts, out = [name for name in CUTS if (base / name / "structures" / COMPLETE).exists()], base / "latency"
    if (out / COMPLETE).exists():
        if set(cuts) <= set(times(base)):
            return
        shutil.rmtree(out)
    structures = {name: Structure.load(base / name / "structures" / FILES[CUTS[name].structure]) for name in cuts}
    renamed = [s.model_copy(update={"chosen_by": {"method": name}}) for name, s in structures.items()]
    benchmark(renamed, out, LatencyConfig(runtimes=("onnxruntime",), threads=(1,), max_seconds=20.0))


def times(base: Path) -> dict[str, tuple[float, float, float]]:
    """The latency of each cut of a seed as a fraction of the dense network's, and its interval."""
    (measured,) = LatencyResult.load(base / "latency" / "latency.json").measurements
    ratios = {name: (found.ratio, *found.interval) for name, found in measured.ratios_to_dense.items()}
    return {"dense": (1.0, 1.0, 1.0), **ratios}


def collect(out: Path, results: Path) -> None:
    """Add a row for each trained cell in ``out`` to the Parquet file ``results``; UserError where there is none."""
    add_rows(results, list(finished(out)), KEY, f"{out} has no trained network yet; make one with the part run")


def finished(out: Path) -> Iterator[dict[str, Any]]:
    """A row for every cell that is trained."""
    for done in sorted(out.glob(f"*-seed*/*/model/{COMPLETE}")):
        model, base = done.parent, done.parents[2]
        network, latency, seed = base.name.rsplit("-", 2)
        metrics, name = read_json(model / "metrics.json"), model.parent.name
        measured = read_json(base / "latency" / "latency.json")
        ratio, low, high = times(base)[name]
        yield {
            "network": network,
            "latency": float(latency),
            "cut": name,
            "seed": int(seed.removeprefix("seed")),
            **{key: metrics[key] for key in ("epochs", "train_rows", "precision", "test_accuracy", "macs", "params")},
            "dense_macs": Structure.load(model / "structure.json").reference.macs,
            "time": ratio,
            "time_low": low,
            "time_high": high,
            "noisy": "; ".join(measured["noisy"]),
            **read_json(base / "machine.json"),
        }


def tables(frame: pd.DataFrame) -> dict[str, str]:
    """``{"equal time resnet20 0.7": Markdown}``: a row a cut."""
    return {
        f"equal time {network} {latency:g}": "\n".join(table(cells))
        for (network, latency), cells in frame.groupby(["network", "latency"])
    }


def table(cells: pd.DataFrame) -> list[str]:
    """Accuracy, MACs and time of each cut, and how far it is from the default's at the same budget, seed by seed."""
    first = cells.iloc[0]
    machines = ", ".join(sorted({f"{c.cpu}, {c.threads} thread(s), torch {c.torch}" for c in cells.itertuples()}))
    lines = [
        f"{first.network}: {first.train_rows:,} images, {first.epochs} epochs, {first.precision}; {machines}; "
        "time in ONNX Runtime on one thread, the dense network's is 1",
        "",
        "| cut | n | test accuracy | by seed | MACs | parameters | time | accuracy against the default's |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
    ]
    accuracy = cells.set_index(["cut", "seed"]).test_accuracy
    for name in [name for name in CUTS if name in set(cells.cut)]:
        of = cells[cells.cut == name].sort_values("seed")
        rival = "default-" + name.rpartition("-")[2]
        seeds = [seed for seed in of.seed if name != rival and (rival, seed) in accuracy.index]
        against = difference(np.array([accuracy[name, seed] - accuracy[rival, seed] for seed in seeds]))
        lines.append(
            f"| {name} | {len(of)} | {of.test_accuracy.mean():.2%} | {', '.join(f'{x:.2%}' for x in of.test_accuracy)} "
            f"| {of.macs.mean() / first.dense_macs:.1%} | {of.params.mean():,.0f} "
            f"| {', '.join(_time(cell, first.cpu) for cell in of.itertuples())} | {against} |"
        )
    return lines


def _time(cell: Any, cpu: str) -> str:
    """The time of a cell, with the machine if it is another one than the first cell's: it cannot be compared then."""
    return f"{cell.time:.3f}" if cell.cpu == cpu else f"{cell.time:.3f} ({cell.cpu})"


if __name__ == "__main__":
    main()
