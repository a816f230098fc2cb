"""The gate search of Wang et al. (2020), section 3: minutes on random weights that are never updated.

loss = cross_entropy(f(x; frozen weights, gates), y) + gamma * (mean gate - r)^2
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pfs_core.config.recipes import SearchRecipe, TrainedRecipe
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.methods.context import Start, start
from pfs_core.methods.gates_folder import write_gates
from pfs_core.methods.pfs.history import Evaluations
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.result import Chosen
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import pick_device, resolve_precision
from pfs_core.runtime.progress import Record, TimeLeft, ignore, say
from pfs_core.storage.artifacts import check_out
from pfs_core.training.checkpoints import Checkpoints, Stage
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.loop_state import Progress
from pfs_core.training.pretrain import as_training, train_first

ADVICE = "a lower search.lr or search.precision=fp32"


def search(
    spec: ModelSpec,
    split: str | Path,
    out: str | Path,
    budget: Budget = Budget(target=0.5),
    recipe: SearchRecipe = SearchRecipe(),
    seed: int = 0,
    record: Record = ignore,
) -> dict[str, Any]:
    """Learn the gates of ``spec`` and write the ``gates`` folder.

    ``gates.safetensors`` has one float32 vector a prunable group, ``history.parquet`` a row an evaluation,
    ``search.json`` the spec, recipe, seed and timings. The same seed gives the same gates, byte
    for byte, on one machine with one number of threads.

    Args:
        spec: the network; its ``expand`` is replaced by the recipe's.
        split: a ``split`` folder.
        out: the folder to write.
        budget: what the structure will be cut to; its fraction is the regulariser's target ratio.
        recipe: see :class:`SearchRecipe`.
        seed: of the random weights and of the order of the images.
        record: called with every row of the history.

    Returns:
        The content of ``search.json``.

    Raises:
        UserError: the split is not one, the network cannot process its images or has nothing to prune.
    """
    check_out(out, "search")
    data = load_split(split, pick_device())
    begun = start(spec, data, budget, recipe, seed)
    with Checkpoints(out, begun.key(data, budget, recipe, seed)) as kept:
        first = None
        if recipe.pretrain_epochs:
            training = as_training(TrainedRecipe(epochs=recipe.pretrain_epochs, precision=recipe.precision))
            first = train_first(begun.model, "search, training,", data, training, seed, record, kept, ADVICE)
        network, evaluations = gated(begun, data, recipe)
        images = learn_gates(network, evaluations, data, recipe, seed, record, first.next if first else kept)
    best = evaluations.best or {**evaluations.rows[-1], "gates": network.by_group()}
    facts = {
        "target_ratio": evaluations.target,
        "precision": network.precision,
        "kept_epoch": best["epoch"],
        "kept_step": best["step"],
        "steps": evaluations.rows[-1]["step"],
        "validation_accuracy": best["val_accuracy"],
        "nonzero": best["nonzero"],
    }
    evaluated = len(evaluations.rows) * len(data.part("validation").labels)
    cost = {"pretrain": first.cost} if first else {}
    cost["search"] = stage_cost(data.device, kept.spent(), images + evaluated, images, first.spent if first else None)
    found = Chosen(best["gates"], evaluations.rows, cost, facts, pretraining=first.history if first else ())
    info = write_gates(out, begun, data, budget, recipe, seed, found)
    kept.clear()
    say(f"search {info['nonzero']:.1%} of the gates of step {info['kept_step']:,} are above 0")
    return info


def prepare(
    spec: ModelSpec, data: ImageSplit, budget: Budget, recipe: SearchRecipe, seed: int
) -> tuple[Start, GatedNetwork, Evaluations]:
    """The expanded network, the same with gates, and what will be known of them."""
    begun = start(spec, data, budget, recipe, seed)
    return begun, *gated(begun, data, recipe)


def gated(begun: Start, data: ImageSplit, recipe: SearchRecipe) -> tuple[GatedNetwork, Evaluations]:
    """The expanded network with gates, and what will be known of them."""
    graph, widths, budget = begun.graph, begun.widths, begun.budget
    target = recipe.target_ratio or min(1.0, budget.fraction(getattr(graph.cost(), budget.metric)))
    precision = resolve_precision(recipe.precision, data.device)
    network = GatedNetwork(begun.model, graph.at(widths), precision, recipe.lr, recipe.compile)
    return network, Evaluations(graph, widths, budget, target, recipe)


def learn_gates(
    network: GatedNetwork,
    evaluations: Evaluations,
    data: ImageSplit,
    recipe: SearchRecipe,
    seed: int,
    record: Record,
    kept: Checkpoints | Stage | None = None,
) -> int:
    """The loop itself; it fills ``evaluations`` and returns the number of images learned from.

    Raises:
        UserError: the loss is no longer finite.
    """
    target = evaluations.target
    normalise = Normalise(data.info, data.device, torch.channels_last)
    training, validation = data.part("train"), data.part("validation")
    steps = training.steps(recipe.batch_size)
    total = recipe.epochs * steps
    every = recipe.evaluate_every or steps
    random = torch.Generator().manual_seed(seed)
    progress = Progress(data.device, random)
    if state := kept.load() if kept else None:
        progress.restore(state)
        network.restore(state["network"])
        evaluations.restore(state["evaluations"])
        for row in evaluations.rows:
            record(row)
    left = TimeLeft(progress.step)
    for epoch in range(progress.epoch, recipe.epochs + 1):
        for images, labels in training.epoch(recipe.batch_size, random, progress.begin(epoch)):
            cross_entropy = F.cross_entropy(network(normalise(images)), labels)
            regulariser = recipe.gamma * (network.mean() - target) ** 2
            network.step(cross_entropy + regulariser)
            progress.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            if progress.step % every == 0 or progress.step % steps == 0:
                row = evaluations.add(evaluate(network, progress, normalise, validation), network.by_group())
                record(row)
                say(f"search {_line(row, steps, recipe)}  left {left(progress.step, total)}")
                if evaluations.settled():
                    say(f"search ends after step {progress.step:,} of {total:,}: the structure has settled")
                    return progress.images
            if kept and kept.due(progress.step):
                progress.check([network.gates.values], "search", ADVICE)
                parts = {"network": network.state(), "evaluations": evaluations.state()}
                kept.save(progress.step, progress.state() | parts)
    return progress.images


def evaluate(network: GatedNetwork, progress: Progress, normalise: Normalise, validation: Images) -> dict[str, Any]:
    """A row of the history; UserError if the loss is no longer finite."""
    progress.check([network.gates.values], "search", ADVICE)
    cross_entropy, regulariser = progress.means()
    predictions = predict(network.module, lambda images: network(normalise(images)), validation)
    return {
        "epoch": progress.epoch,
        "step": progress.step,
        "loss": cross_entropy + regulariser,
        "cross_entropy": cross_entropy,
        "regulariser": regulariser,
        "mean_gate": network.mean().item(),
        "nonzero": network.nonzero(),
        "val_accuracy": accuracy(predictions, validation.labels),
    }


def _line(row: dict[str, Any], steps: int, recipe: SearchRecipe) -> str:
    epochs = f"{row['step'] / steps:.1f}" if recipe.evaluate_every else str(row["epoch"])
    return (
        f"epoch {epochs}/{recipe.epochs}  loss {row['loss']:.4f}  mean gate {row['mean_gate']:.3f}  "
        f"non-zero {row['nonzero']:.3f}  moved {row['moved']:.3f}  validation accuracy {row['val_accuracy']:.4f}"
    )
