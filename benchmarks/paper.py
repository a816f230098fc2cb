"""The paper's comparison on CIFAR-10: every method cuts to one budget, and what it leaves is trained from scratch.

    python benchmarks/paper.py run --data DIR --out DIR --experiment resnet20 --seeds 0 1 --scale 0.05
    python benchmarks/paper.py table --out DIR [--docs PAGE]

--data is a folder with train.parquet and test.parquet. What is done in --out is not done again, and what was stopped
goes on where it was; several processes may share the folder if their seeds differ. --scale makes the work so many times
smaller: training images are multiplied by its square root, and so are epochs and episodes (at least 1). The cell
pfs_pretrained learns the gates on trained weights in place of random ones. --docs puts each table between the marks
<!-- paper: EXPERIMENT SCALE --> and <!-- end --> of a page, which must be there.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from paper_tables import collected, put, tables

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import split_dataset
from pfs_core.errors import UserError
from pfs_core.latency.machine import machine
from pfs_core.methods.config import MethodConfig
from pfs_core.methods.registry import METHODS
from pfs_core.methods.run import search
from pfs_core.runtime.progress import say, user_errors
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import COMPLETE, publish, write_json
from pfs_core.structure import FILES, Structure, unexpanded_graph
from pfs_core.structure.references import dense
from pfs_core.training.retrain import retrain

SPARSITY = {"resnet20": 1e-5, "resnet56": 1e-5, "vgg16": 1e-4}
"""The weight of Network Slimming's penalty."""
EXPERIMENTS = {
    "resnet20": ("resnet20", 0.5),
    "resnet56": ("resnet56", 1 / 2.1),
    "vgg16": ("vgg16", 1 / 2.1),
    **{f"{network}-{share}": (network, share) for network in SPARSITY for share in (0.7, 0.3)},
}
"""Network and share of the MACs."""
PRETRAINED = "pfs_pretrained"
CELLS = ("dense", *METHODS, PRETRAINED)


def main() -> None:
    """Run what is missing, or print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["run", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiment", default="resnet20", choices=EXPERIMENTS)
    parser.add_argument("--methods", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--docs", type=Path)
    with user_errors():
        work(parser.parse_args())


def work(a: argparse.Namespace) -> None:
    """What the command line asks for.

    Raises:
        UserError: something of it cannot be done.
    """
    if not 0 < a.scale <= 1:
        raise UserError(f"--scale must be above 0 and at most 1 (got {a.scale:g})")
    if a.part == "run":
        if not (a.data and (a.data / "train.parquet").exists()):
            raise UserError(f"--data must be a folder with train.parquet and test.parquet (got {a.data})")
        for seed in a.seeds:
            base = a.out / f"{a.experiment}-scale{a.scale:g}-seed{seed}"
            split = chosen_images(a.data, base, a.scale, seed)
            for method in a.methods:
                say(f"== {base.name} {method}")
                run(a.experiment, method, seed, a.scale, split, base / method)
    frame = collected(a.out)
    if a.part == "table":
        for mark, text in tables(frame, CELLS).items():
            print(f"\n{text}")
            if a.docs:
                put(a.docs, mark, text)


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
    network, share = EXPERIMENTS[experiment]
    budget, part = Budget(target=share), math.sqrt(scale)
    if not (folder / "machine.json").exists():
        folder.mkdir(exist_ok=True)
        about = {"cpu": machine()["cpu"], "threads": torch.get_num_threads(), "torch": torch.__version__}
        write_json(folder / "machine.json", about)
    if method == "dense":
        spec = ModelSpec(name=network)
        structure = dense(unexpanded_graph(spec), budget, model=spec)
    else:
        if not (folder / "gates" / COMPLETE).exists():
            how = settings(method, part, SPARSITY[network])
            search(ModelSpec(name=network), split, folder / "gates", budget, how, seed)
        if not (folder / "structures" / COMPLETE).exists():
            extract_structures(folder / "gates", folder / "structures", budget)
        structure = Structure.load(folder / "structures" / FILES["pruned"])
    if not (folder / "model" / COMPLETE).exists():
        usual = recipe("cifar-official").retrain
        changes = {"epochs": shrunk(usual.epochs, part), "scratch_b": False}
        retrain(structure, split, folder / "model", usual.updated(changes, "retrain"), seed)


def settings(method: str, part: float, sparsity: float) -> MethodConfig:
    """The method's own settings, with its epochs and episodes made fewer."""
    usual = recipe("cifar-official").stage("search", {"method": "pfs" if method == PRETRAINED else method})
    changes: dict[str, Any] = {
        key: shrunk(getattr(usual, key), part)
        for key in ("epochs", "episodes", "warmup_episodes")
        if hasattr(usual, key)
    }
    if method == "network_slimming":
        changes["sparsity"] = sparsity
    if method == PRETRAINED:
        changes["pretrain_epochs"] = shrunk(recipe("cifar-official").retrain.epochs, part)
    return usual.updated(changes, "search")


def shrunk(count: int, part: float) -> int:
    """``count`` times ``part``, at least 1."""
    return max(1, round(count * part))


if __name__ == "__main__":
    main()
