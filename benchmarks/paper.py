"""The paper's comparison on CIFAR-10: every method cuts to one budget, and what it leaves is trained from scratch.

    python benchmarks/paper.py run --data DIR --out DIR --experiment resnet20 --methods pfs uniform --seeds 0
    python benchmarks/paper.py collect --out DIR --results FILE
    python benchmarks/paper.py table --results FILE [--docs PAGE]

--data is a folder with train.parquet and test.parquet. A cell is one method and one seed of an experiment; cells can be
run in any order and on several machines. What is done in --out is not done again, and what was stopped resumes where it
was; several processes may share the folder if their seeds differ. `collect` adds the finished cells of a folder to a
Parquet file, one row per cell, and `table` prints what that file has.

--scale shrinks every training: its images and its epochs are multiplied by the square root of it (at least 1 epoch).
The search is never shrunk: on fewer images it takes more epochs, so that it has no fewer steps. --search-scale shrinks
it after all, to try this command. The cell pfs_pretrained learns the gates on trained weights in place of random ones.
--docs puts each table between the marks <!-- paper: EXPERIMENT SCALE --> and <!-- end --> of a page, which must be
there.

The cells torch_pruning_quarter and torch_pruning_whole are what a user may do instead: they prune the trained network
of the cell dense, which is run first where it is missing, by Torch-Pruning's group norms to the same MACs, and
fine-tune it at a tenth of the rate for a quarter of the dense network's epochs, and for as many.
"""

import argparse
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from paper_tables import COSTS, cells_command, collect, tables
from safetensors.torch import save_file

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import split_dataset
from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.latency.machine import machine
from pfs_core.methods.amc.config import AmcConfig
from pfs_core.methods.config import MethodConfig, TrainedConfig
from pfs_core.methods.network_slimming.config import NetworkSlimmingConfig
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.registry import METHODS, method_config
from pfs_core.methods.run import search
from pfs_core.nn.weights import weights_of
from pfs_core.runtime.cost import StageCost
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import COMPLETE, publish, read_json, write_json
from pfs_core.structure import FILES, Structure, unexpanded_graph
from pfs_core.structure.inherited_weights import FILE as INHERITED
from pfs_core.structure.references import dense
from pfs_core.training.metrics import TrainingMetrics
from pfs_core.training.retrain import load_model, retrain

FINE_TUNING_RATE = 0.01
"""Learning rate of fine-tuning: that of Torch-Pruning's own experiments, a tenth of the one from scratch."""
SPARSITY = {"resnet20": 1e-5, "resnet56": 1e-5, "vgg16": 1e-4}
"""The weight of Network Slimming's penalty."""


@dataclass(frozen=True)
class Experiment:
    """One network at one budget: every method cuts it to ``share`` of its MACs and trains what is left.

    With ``scratch_b``, ``epochs`` are the dense network's, and the pruned ones spend the same compute; without it every
    network is trained for as many epochs.
    """

    network: str
    share: float
    epochs: int = 160
    scratch_b: bool = True


EXPERIMENTS = {
    "resnet20": Experiment("resnet20", 0.5),
    "resnet56": Experiment("resnet56", 1 / 2.1),
    "vgg16": Experiment("vgg16", 0.5, epochs=60),
    "resnet20-short": Experiment("resnet20", 0.5, epochs=40, scratch_b=False),
    "vgg16-short": Experiment("vgg16", 0.5, epochs=20, scratch_b=False),
    **{f"{network}-{share}": Experiment(network, share) for network in SPARSITY for share in (0.7, 0.3)},
}
PRETRAINED = "pfs_pretrained"
FINE_TUNED = {"torch_pruning_quarter": 0.25, "torch_pruning_whole": 1.0}
"""Cells of Torch-Pruning, with the share of the dense network's epochs that they fine-tune for."""
CELLS = ("dense", *METHODS, PRETRAINED, *FINE_TUNED)


def main() -> None:
    """Run what is missing, collect what is done, or print it."""
    cells_command(__doc__, add_options, run_cells, collect, partial(tables, order=CELLS))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what cells are known by."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--experiment", default="resnet20", choices=EXPERIMENTS)
    parser.add_argument("--methods", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--search-scale", type=float, default=1.0)


def run_cells(a: argparse.Namespace) -> None:
    """Run every cell that is asked for and not done."""
    for option in ("scale", "search_scale"):
        if not 0 < getattr(a, option) <= 1:
            name = option.replace("_", "-")
            raise UserError(f"--{name} must be above 0 and at most 1 (got {getattr(a, option):g})")
    if not (a.data / "train.parquet").exists():
        raise UserError(f"--data must be a folder with train.parquet and test.parquet (got {a.data})")
    for seed in a.seeds:
        base = a.out / f"{a.experiment}-scale{a.scale:g}-seed{seed}"
        check_as_before(base, "search-scale", a.search_scale, usual=1.0)
        split = chosen_images(a.data, base, a.scale, seed)
        for method in a.methods:
            print(f"== {base.name} {method}", flush=True)
            run(a.experiment, method, seed, a.scale, a.search_scale, split, base / method)


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


def run(experiment: str, method: str, seed: int, scale: float, search_scale: float, split: Path, folder: Path) -> None:
    """Choose a structure and train it; ``folder`` gets ``gates``, ``structures`` and ``model``."""
    what, part = EXPERIMENTS[experiment], math.sqrt(scale)
    budget, spec = Budget(target=what.share), ModelSpec(name=what.network)
    changes: dict[str, Any] = {"epochs": shrunk(what.epochs, part), "scratch_b": what.scratch_b}
    initial = None
    if method in FINE_TUNED and not (folder.with_name("dense") / "model" / COMPLETE).exists():
        run(experiment, "dense", seed, scale, search_scale, split, folder.with_name("dense"))
    note_machine(folder)
    if method == "dense":
        structure = dense(unexpanded_graph(spec), model=spec)
    elif method in FINE_TUNED:
        if not (folder / "structures" / COMPLETE).exists():
            prune_dense(folder.with_name("dense") / "model", folder / "structures", budget)
        structure = Structure.load(folder / "structures" / FILES["pruned"])
        initial = folder / "structures" / INHERITED
        epochs = shrunk(FINE_TUNED[method] * what.epochs, part)
        changes = {"epochs": epochs, "scratch_b": False, "start": "inherited", "lr": FINE_TUNING_RATE}
    else:
        if not (folder / "gates" / COMPLETE).exists():
            rows = SplitInfo.load(split / "split.json").rows["train"]
            search(spec, split, folder / "gates", budget, settings(method, what, part, search_scale, rows), seed)
        if not (folder / "structures" / COMPLETE).exists():
            extract_structures(folder / "gates", folder / "structures", budget, recipe("cifar-official").extract)
        structure = Structure.load(folder / "structures" / FILES["pruned"])
    if not (folder / "model" / COMPLETE).exists():
        config = recipe("cifar-official").retrain.updated(changes, "retrain")
        retrain(structure, split, folder / "model", config, seed, initial=initial)


def check_as_before(base: Path, option: str, value: float | None, usual: float | None = None) -> None:
    """Raise UserError if what is in a folder was made with another value of an option that is to try a command."""
    noted = base / f"{option}.json"
    before = read_json(noted)["value"] if noted.exists() else usual if base.exists() else value
    if before != value:
        raise UserError(f"{base} was made with --{option} {before or 'left out'}; name another folder with --out")
    if value != usual:
        base.mkdir(parents=True, exist_ok=True)
        write_json(noted, {"value": value})


def note_machine(folder: Path) -> None:
    """Write down in ``folder`` what a cell is started on."""
    if not (folder / "machine.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        about = {"cpu": machine()["cpu"], "threads": torch.get_num_threads(), "torch": torch.__version__}
        write_json(folder / "machine.json", about)


def prune_dense(model: Path, out: Path, budget: Budget) -> None:
    """Prune a trained network by group norms; ``out`` gets the structure, its weights and ``cost.json``."""
    from group_norm import prune_to  # needs torch-pruning, which the other cells do without

    network, whole = load_model(model)
    started, processors = time.perf_counter(), time.process_time()
    structure = prune_to(network, whole.model, budget)
    seconds, processors = time.perf_counter() - started, time.process_time() - processors
    cost = StageCost(seconds=seconds, device_seconds=processors, forward_images=0, backward_images=0)
    trained = TrainingMetrics.load(model / "metrics.json").cost["retrain"]
    with publish(out, "structure") as folder:
        structure.save(folder / FILES["pruned"])
        save_file(weights_of(network), folder / INHERITED)
        write_json(folder / COSTS, {"pretrain": trained.model_dump(), "search": cost.model_dump()})


def settings(method: str, what: Experiment, part: float, search_scale: float, rows: int) -> MethodConfig:
    """The method's own settings: its trainings are shrunk, its search on ``rows`` images has no fewer steps."""
    usual = method_config(recipe("cifar-official"), {"method": "pfs" if method == PRETRAINED else method})
    changes: dict[str, Any] = {}
    if isinstance(usual, PfsConfig):
        whole, here = (math.ceil(count / usual.batch_size) for count in (round(rows / part), rows))  # steps an epoch
        changes["epochs"] = max(1, math.ceil(search_scale * usual.epochs * whole / here))
    if isinstance(usual, TrainedConfig):
        changes["epochs"] = shrunk(what.epochs, part)
    if isinstance(usual, NetworkSlimmingConfig):
        changes["sparsity"] = SPARSITY[what.network]
    if isinstance(usual, AmcConfig):
        changes["warmup_episodes"] = shrunk(usual.warmup_episodes, search_scale)
        changes["episodes"] = shrunk(usual.episodes, search_scale)
    if method == PRETRAINED:
        changes["pretrain_epochs"] = shrunk(what.epochs, part)
    return usual.updated(changes, "search")


def shrunk(count: float, part: float) -> int:
    """``count`` times ``part``, at least 1."""
    return max(1, round(count * part))


if __name__ == "__main__":
    main()
