"""ResNet-20 on CIFAR-10 at half the MACs: what docs/results.md says, made again.

    python benchmarks/cifar10.py PARQUET_FOLDER OUT --docs docs/results.md

Searches in bf16 and in fp32 with the same seed and in fp32 with another, cuts at macs=0.5, and trains the pruned, the
uniform and the dense network alike for a few epochs. Steps that are complete in OUT are not run again.
"""

import argparse
import itertools
import os
import platform
from pathlib import Path

import numpy as np
import torch
from paper_tables import put
from torch import Tensor

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import ExtractConfig, RetrainConfig
from pfs_core.data import split_dataset
from pfs_core.latency.machine import machine
from pfs_core.methods.gates_folder import load_gates
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.report.verdict import difference_interval
from pfs_core.steps.extraction import extract_structures
from pfs_core.storage.artifacts import COMPLETE, read_json
from pfs_core.structure import FILES, Structure
from pfs_core.structure.ranking import ranked_channels
from pfs_core.training.metrics import TrainingMetrics
from pfs_core.training.retrain import retrain

BUDGET = Budget(target=0.5)
MARK = "five epochs"
"""What the page holds between its marks."""
SEARCHES = (("bf16", 0), ("fp32", 0), ("fp32", 1))


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3, help="of each retraining")
    parser.add_argument("--seeds", type=int, default=1, help="retrainings a network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    recipe = RetrainConfig(epochs=a.epochs, schedule="cosine", scratch_b=False)
    if not done(a.out / "split"):
        split_dataset(a.dataset, a.out / "split")
    for precision, seed in SEARCHES:
        gates = a.out / f"gates-{precision}-{seed}"
        if not done(gates):
            search(
                ModelSpec(name="resnet20"),
                a.out / "split",
                gates,
                BUDGET,
                PfsConfig.model_validate({"precision": precision}),
                seed,
            )
        extract_structures(gates, a.out / f"structures-{precision}-{seed}", BUDGET, ExtractConfig(blocks=1))
    for seed, network in itertools.product(range(a.seeds), FILES):
        model = a.out / f"model-{network}-{seed}"
        if not done(model):
            structure = Structure.load(a.out / "structures-bf16-0" / FILES[network])
            retrain(structure, a.out / "split", model, recipe, seed)
    put(a.docs, MARK, page(a.out, a.seeds))


def done(folder: Path) -> bool:
    """Whether a step's folder is complete."""
    return (folder / COMPLETE).is_file()


def kept(gates: dict[str, Tensor], count: int) -> set[tuple[str, int]]:
    """The ``count`` channels (group, index) with the largest gates."""
    left = {
        group: iter(scores.double().sort(descending=True, stable=True).indices.tolist())
        for group, scores in gates.items()
    }
    groups = list(gates)
    return {(groups[owner], next(left[groups[owner]])) for owner in ranked_channels(gates)[1][:count]}


def overlap(a: dict[str, Tensor], b: dict[str, Tensor], count: int) -> float:
    """Share of the ``count`` channels kept by one search that the other keeps too."""
    return len(kept(a, count) & kept(b, count)) / count


def page(out: Path, seeds: int) -> str:
    """The Markdown between the marks."""
    gates = {key: load_gates(out / f"gates-{key[0]}-{key[1]}") for key in SEARCHES}
    structures = {key: Structure.load(out / f"structures-{key[0]}-{key[1]}" / "structure.json") for key in SEARCHES}
    pruned = structures["bf16", 0]
    prunable = list(gates["bf16", 0][0])
    count = sum(pruned.widths[group] for group in prunable)
    total = sum(len(scores) for scores in gates["bf16", 0][0].values())
    widths = {key: [s.widths[group] for group in prunable] for key, s in structures.items()}
    pairs = [
        ("bf16 and fp32, same seed", ("bf16", 0), ("fp32", 0)),
        ("fp32, two seeds", ("fp32", 0), ("fp32", 1)),
    ]
    moved = [f"{1 - overlap(gates[a][0], gates[b][0], count):.0%}" for _, a, b in pairs]
    rows = [
        f"| {name} | {overlap(gates[a][0], gates[b][0], count):.3f} | {np.corrcoef(widths[a], widths[b])[0, 1]:.3f} |"
        for name, a, b in pairs
    ]
    searches = [
        f"| {precision}, seed {seed} | {info.seconds / 60:.1f} | {info.kept_epoch} | {info.nonzero:.3f} | "
        f"{info.validation_accuracy:.4f} | {structures[precision, seed].cost.macs:,} | "
        f"{structures[precision, seed].cost.params:,} |"
        for (precision, seed), (_, info) in gates.items()
    ]
    reference = pruned.reference
    cpu = machine()
    first = read_json(out / "model-pruned-0" / "metrics.json")
    info = gates["bf16", 0][1]
    return TEMPLATE.format(
        cpu=cpu["cpu"],
        flags=", ".join(cpu["flags"]),
        cores=os.cpu_count(),
        torch=cpu["torch"],
        python=platform.python_version(),
        search_epochs=info.config_as(PfsConfig).epochs,
        seeds=seeds,
        epochs=first["epochs"],
        train_rows=first["train_rows"],
        batch=first["recipe"]["batch_size"],
        searches="\n".join(searches),
        overlaps="\n".join(rows),
        chance=f"{count / total:.3f}",
        moved_precision=moved[0],
        moved_seed=moved[1],
        comparison=comparison(out),
        count=count,
        total=total,
        structure="\n".join(structure_rows(pruned, Structure.load(out / "structures-bf16-0" / "uniform.json"))),
        macs=f"{pruned.cost.macs:,}",
        fraction=f"{pruned.cost.macs / reference.macs:.5f}",
        reference=f"{reference.macs:,}",
        networks="\n".join(network_rows(out, seeds)),
    )


def structure_rows(pruned: Structure, uniform: Structure) -> list[str]:
    """A table row a resizable channel group."""
    graph = pruned.graph()
    expanded = graph.expanded(pruned.model.expand, pruned.model.expand_stream)
    return [
        f"| {g.name} | {g.width} | {expanded[g.name]} | {pruned.widths[g.name]} | {uniform.widths[g.name]} | "
        f"{'yes' if g.prunable else 'no (residual stream)'} |"
        for g in graph.groups
        if g.resizable
    ]


def comparison(out: Path) -> str:
    """Whether the first trainings of the pruned and the uniform network can be told apart."""
    pruned, uniform = (
        TrainingMetrics.load(out / f"model-{network}-0" / "metrics.json") for network in ("pruned", "uniform")
    )
    low, high = difference_interval(
        pruned.test_accuracy, uniform.test_accuracy, pruned.test_accuracy_interval, uniform.test_accuracy_interval
    )
    interval = f"{100 * low:+.1f} to {100 * high:+.1f} points between their first trainings"
    if low > 0:
        return f"The pruned network is better than the uniform one: {interval}."
    if high < 0:
        return f"The uniform network is better than the pruned one: {interval}."
    return f"Pruned and uniform cannot be told apart: {interval}."


def network_rows(out: Path, seeds: int) -> list[str]:
    """A table row a trained network, dense first."""
    rows = []
    for network in reversed(FILES):
        runs = [read_json(out / f"model-{network}-{seed}" / "metrics.json") for seed in range(seeds)]
        accuracies = ", ".join(f"{run['test_accuracy']:.2%}" for run in runs)
        low, high = runs[0]["test_accuracy_interval"]
        rows.append(
            f"| {network} | {runs[0]['macs']:,} | {runs[0]['params']:,} | {accuracies} | [{low:.2%}, {high:.2%}] | "
            f"{runs[0]['seconds'] / 60:.1f} |"
        )
    return rows


TEMPLATE = """Made by
`python benchmarks/cifar10.py PARQUET_FOLDER OUT --docs docs/results.md --epochs {epochs} --seeds {seeds}`.

Machine: {cpu} ({flags}), {cores} cores, no GPU; torch {torch}, Python {python}.

Data: CIFAR-10, official order, 45,000 training, 5,000 random validation and 10,000 test images. The copy used has 103
images (80 training, 23 test) that come from a JPEG and are not bit-exact, so no figure below is good to 0.01%.

### The search: ResNet-20, 1.25x, macs=0.5

{search_epochs} epochs each on frozen random weights, batch 128, gamma 0.5, target ratio 0.5, policy `inner`. One run
each (n = 1).

| search | minutes | epoch kept | non-zero gates | validation accuracy | MACs at the budget | parameters |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{searches}

The validation accuracy is that of a random, never trained network seen through its gates: it ranks gates and says
nothing about the pruned network. The minutes are of a machine that did other work beside, and are no benchmark.

The structure of the bf16 search: {macs} MACs, {fraction} of the dense network's {reference}.

| channel group | dense | 1.25x | pruned | uniform | prunable |
| --- | ---: | ---: | ---: | ---: | --- |
{structure}

### Does bf16 rank the gates as fp32 does?

Overlap: of the {count} channels (of {total}) with the largest gates in one search, the share that is also among the
{count} largest of the other. Two random sets would share {chance}. Correlation: of the widths, over the prunable
groups.

| searches | overlap of kept channels | correlation of widths |
| --- | ---: | ---: |
{overlaps}

Another seed draws other random weights, so its channel 7 is another channel: that overlap is what is left when only
the layers' shares agree. It is the scale on which to read the first row. bf16 changes {moved_precision} of the kept
channels, another seed {moved_seed}: bf16 does not rank exactly as fp32 does, but it moves the structure less than the
seed does, for less than half the time a step ([performance.md](performance.md)). So it is the default where the
hardware has it; `--set search.precision=fp32` turns it off. How far two fp32 searches on the same weights differ by
the order of the images alone was not measured.

### Trained alike for {epochs} epochs

Each network from scratch on all {train_rows:,} images (training and validation), SGD with Nesterov momentum at rate
0.1 with a cosine, weight decay 5e-4, batch {batch}, bf16; n = {seeds} trainings each; tested once, at the end, in fp32.
The interval is Wilson's over the 10,000 test images of the first training; it does not cover the spread between
trainings.

| network | MACs | parameters | test accuracy | 95% interval, first | minutes, first |
| --- | ---: | ---: | ---: | ---: | ---: |
{networks}

{comparison}

{epochs} epochs are far from the 160 to 200 of the paper's schedules: this shows that the pipeline works on real
images, not what the networks reach. No GPU was at hand for the full schedule; figures at that scale are still to be
made."""


if __name__ == "__main__":
    main()
