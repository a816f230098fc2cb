"""The training loop."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfs_core.checkpoints import Checkpoints
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.device import autocast, memory_format, resolve_precision
from pfs_core.progress import Record, TimeLeft, say
from pfs_core.recipes import RetrainRecipe
from pfs_core.structure import Structure
from pfs_core.training.advance import Progress
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.optimise import Optimisation, micro_batches

ADVICE = "a lower retrain.lr, a longer retrain.warmup_epochs, retrain.clip_norm or retrain.precision=fp32"


@dataclass(frozen=True)
class Fitted:
    """What the loop ends with.

    Attributes:
        last: the weights after the last epoch, by the network's own names, on the CPU.
        best: the validation with the highest accuracy: ``epoch``, ``val_accuracy`` and ``weights``; None without one.
        history: a row an epoch.
    """

    last: dict[str, Tensor]
    best: dict[str, Any] | None
    history: list[dict[str, Any]]


def fit(
    model: nn.Module,
    structure: Structure,
    data: ImageSplit,
    recipe: RetrainRecipe,
    epochs: int,
    seed: int,
    record: Record,
    kept: Checkpoints | None = None,
) -> Fitted:
    """Train ``model``, on the device of ``data``, for so many epochs; UserError where it diverges."""
    forward = prepared(model, structure, data, recipe)
    training, validation = training_images(data, recipe), data.part("validation")
    optimisation = Optimisation(model, recipe, epochs * training.steps(recipe.batch_size))
    random = torch.Generator().manual_seed(seed)
    progress = Progress(data.device, random)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    lr = recipe.lr
    if state := kept.load() if kept else None:
        progress.restore(state)
        optimisation.restore(state)
        history, best, lr = state["history"], state["best"], state["lr"]
        for row in history:
            record(row)
    left = TimeLeft(progress.epoch - 1)
    for epoch in range(progress.epoch, epochs + 1):
        done = progress.begin(epoch)
        lr = lr if done else optimisation.lr
        for batch, target in training.epoch(recipe.batch_size, random, done):
            sums = backward(partial(forward, model), batch, target, recipe)
            optimisation.step()
            progress.add(sums, len(target))
            if kept and kept.due():
                progress.check(optimisation.watched, "training", ADVICE)
                state = {"history": history, "best": best, "lr": lr}
                kept.save(progress.step, progress.state() | optimisation.state() | state)
        progress.check(optimisation.watched, "training", ADVICE)
        loss, train_accuracy = progress.means()
        row = {"epoch": epoch, "loss": loss, "train_accuracy": train_accuracy, "lr": lr}
        if not recipe.train_on_validation:
            row["val_accuracy"] = None
            if epoch % recipe.validate_every == 0 or epoch == epochs:
                predictions = predict(optimisation.network, partial(forward, optimisation.network), validation)
                row["val_accuracy"] = found = accuracy(predictions, validation.labels)
                if best is None or found > best["val_accuracy"]:
                    best = {"epoch": epoch, "val_accuracy": found, "weights": copied(optimisation.network)}
        history.append(row)
        record(row)
        say(_line(structure.network, row, epochs, left))
    return Fitted(copied(optimisation.network), best, history)


def prepared(
    model: nn.Module, structure: Structure, data: ImageSplit, recipe: RetrainRecipe
) -> Callable[[nn.Module, Tensor], Tensor]:
    """Put ``model`` in the faster layout and in training mode.

    Returns:
        What computes float32 logits [N, classes] from a network of that layout and uint8 images [N, C, H, W], in the
        recipe's precision.
    """
    precision = resolve_precision(recipe.precision, data.device)
    widths = (structure.widths[group.name] for group in structure.graph().groups if group.resizable)
    layout = memory_format(data.device, precision, widths)
    model.to(memory_format=layout).train()
    normalise = Normalise(data.info, data.device, layout)

    def forward(network: nn.Module, images: Tensor) -> Tensor:
        with autocast(data.device, precision):
            return network(normalise(images)).float()

    return forward


def training_images(data: ImageSplit, recipe: RetrainRecipe) -> Images:
    """The rows that the recipe trains on."""
    return data.part("train", "validation") if recipe.train_on_validation else data.part("train")


def backward(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, recipe: RetrainRecipe) -> Tensor:
    """Add the gradient of the mean loss over a step's images to that of the weights, a micro-batch at a time.

    Returns:
        float [2]: the sum of the losses and the number of images that are classified right.
    """
    sums = torch.zeros(2, device=labels.device)
    for batch, target in micro_batches(images, labels, recipe):
        logits = forward(batch)
        loss = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
        (loss * (len(target) / len(labels))).backward()
        sums = sums + torch.stack([loss.detach() * len(target), (logits.argmax(1) == target).sum()])
    return sums


def copied(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, contiguous, on the CPU."""
    return {
        name: weights.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, weights in network.state_dict().items()
    }


def _line(network: str, row: dict[str, Any], epochs: int, left: TimeLeft) -> str:
    validation = f"  validation accuracy {row['val_accuracy']:.4f}" if row.get("val_accuracy") is not None else ""
    return (
        f"retrain {network} epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  "
        f"train accuracy {row['train_accuracy']:.4f}{validation}  left {left(row['epoch'], epochs)}"
    )
