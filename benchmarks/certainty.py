"""How sure the gate search is: what its structure owes to the weights, to the order of the images, and to bf16.

    python benchmarks/certainty.py run --dataset DATASET --out DIR --weights 0 1 2 3 4
    python benchmarks/certainty.py run --dataset DATASET --out DIR --weights 1 2 3 4 --orders 0
    python benchmarks/certainty.py run --dataset DATASET --out DIR --weights 0 --orders 1 2 3 4
    python benchmarks/certainty.py collect --out DIR --results FILE
    python benchmarks/certainty.py table --results FILE [--docs PAGE]

A cell is one search: gates on weights that one seed draws, with the images in an order that another draws, in one
number format (--precision). Without --orders both seeds are the same, as in a run of `pfs search`. Cells can be run in
any order and on several machines; what is done in --out is not done again, and what was stopped resumes where it was.
`collect` adds the finished cells to a Parquet file, one row per cell, and `table` prints what that file has; --docs
puts it between the marks <!-- paper: certainty NETWORK BUDGET IMAGES EPOCHS --> and <!-- end --> of a page. Several
processes may share --out if their cells differ, once the first has made the split.

The structures of several draws (`search.draws`) are made of the cells whose seeds are the same, since a search of K
draws averages K of them: of 20 such cells there are 10 structures of 2 draws and 5 of 4.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from certainty_tables import collect, tables
from paper import note_machine
from paper_tables import cells_command

from pfs_core.config.overrides import recipe_for
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split, split_dataset
from pfs_core.methods.context import search_context
from pfs_core.methods.gates_folder import write_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.registry import method_config, method_named
from pfs_core.runtime.device import pick_device, resolve_precision
from pfs_core.storage.artifacts import COMPLETE
from pfs_core.training.checkpoints import Checkpoints


def main() -> None:
    """Run what is missing, collect what is done, or print it."""
    cells_command(__doc__, add_options, run_cells, collect, tables)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what cells are known by."""
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budget", default="macs=0.5")
    parser.add_argument("--weights", type=int, nargs="+", default=[0], help="seeds of the weights")
    parser.add_argument("--orders", type=int, nargs="+", help="seeds of the order of the images")
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=("bf16", "fp32"))
    parser.add_argument("--recipe", default="cifar-official")
    parser.add_argument("--epochs", type=int, help="of a search; the recipe's without")


def run_cells(a: argparse.Namespace) -> None:
    """Run every cell that is asked for and not done."""
    recipe = recipe_for(a.recipe, a.dataset)
    if not (a.out / "split" / COMPLETE).exists():
        split_dataset(a.dataset, a.out / "split", recipe.split)
    for precision, weights, order in asked(a):
        changes = {"precision": precision, **({"epochs": a.epochs} if a.epochs else {})}
        config = method_config(recipe, changes)
        assert isinstance(config, PfsConfig)
        folder = a.out / f"{a.network}-{a.budget}-{config.epochs}epochs-{precision}" / f"weights{weights}-order{order}"
        if not (folder / "gates" / COMPLETE).exists():
            print(f"== {folder.parent.name} {folder.name}", flush=True)
            note_machine(folder)
            spec, budget = ModelSpec(name=a.network), Budget.from_text(a.budget)
            learn(spec, a.out / "split", folder / "gates", budget, config, weights, order)


def asked(a: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Precision, seed of the weights and seed of the order of each cell."""
    for precision in a.precision:
        for weights in a.weights:
            for order in a.orders or [weights]:
                yield precision, weights, order


def learn(spec: ModelSpec, split: Path, out: Path, budget: Budget, config: PfsConfig, weights: int, order: int) -> None:
    """Search as :func:`pfs_core.methods.run.search` does, but for the two seeds; ``out`` gets the gates."""
    data = load_split(split, pick_device())
    context = search_context(spec, data, budget, config, weights, lambda key: Checkpoints(out, {**key, "order": order}))
    with context.checkpoints as checkpoints:
        found = method_named(config.method).run(replace(context, seed=order))
    facts = {"precision": resolve_precision(config.precision, data.device), **found.facts}
    write_gates(out, context, budget, replace(found, facts=facts))
    checkpoints.clear()


if __name__ == "__main__":
    main()
