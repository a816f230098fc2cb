"""The fourth step: a structure trained from scratch."""

import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from torch import Tensor, nn

import pfs_core
from pfs_core.checkpoints import Checkpoints
from pfs_core.data import ImageSplit, load_split
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.device import autocast, pick_device, resolve_precision, reuse_memory
from pfs_core.errors import UserError
from pfs_core.files import check_out, publish, require_result, write_json
from pfs_core.folded_norm import fold_norms
from pfs_core.progress import Record, TimeLeft, ignore, say
from pfs_core.recipes import RetrainRecipe
from pfs_core.structure import Structure
from pfs_core.training.advance import Progress
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.schedule import planned_epochs, schedule

SCHEMA = "pfs.model/1"


def retrain(
    structure: Structure,
    split: str | Path,
    out: str | Path,
    recipe: RetrainRecipe,
    seed: int = 0,
    record: Record = ignore,
) -> dict[str, Any]:
    """Train ``structure`` from a fresh initialisation, test it once and write the ``model`` folder.

    ``model.safetensors`` has the weights under the network's own names, ``structure.json`` what they fit,
    ``metrics.json`` the test accuracy with its 95% Wilson interval and the confusion matrix,
    ``history.parquet`` a row an epoch.

    Args:
        structure: what to train.
        split: a ``split`` folder.
        out: the folder to write.
        recipe: see :class:`RetrainRecipe`.
        seed: of the initial weights and of the order of the images.
        record: called with every row of the history.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: the split is not one or does not fit the structure, or the loss is no longer finite.
    """
    check_out(out, "metrics")
    device = pick_device()
    data = load_split(split, device)
    check_fits(structure, data)
    torch.manual_seed(seed)
    model = structure.build().to(device)
    epochs = planned_epochs(structure, recipe)
    started = time.perf_counter()
    key = {
        "step": "retrain",
        "structure": structure.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "split": data.info["fingerprint"],
        "device": device.type,
    }
    with Checkpoints(out, key) as kept:
        history = fit(model, structure, data, recipe, epochs, seed, record, kept)
    model.to(memory_format=torch.contiguous_format)
    normalise = Normalise(data.info, device, torch.contiguous_format)
    test = data.part("test")
    predictions = predict(model, lambda images: model(normalise(images)), test)
    labels = test.labels
    correct = int((predictions == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    metrics = {
        "schema": SCHEMA,
        "network": structure.network,
        "trained": True,
        "macs": structure.cost.macs,
        "params": structure.cost.params,
        "test_accuracy": correct / len(labels),
        "test_accuracy_interval": [float(interval.low), float(interval.high)],
        "test_rows": len(labels),
        "train_rows": len(_training(data, recipe)),
        "confusion_matrix": confusion(predictions, labels, data.num_classes),
        "class_names": data.info["class_names"],
        "epochs": epochs,
        "recipe": recipe.model_dump(mode="json"),
        "precision": resolve_precision(recipe.precision, device),
        "device": str(device),
        "seed": seed,
        "split_fingerprint": data.info["fingerprint"],
        "pfs_version": pfs_core.__version__,
        "seconds": time.perf_counter() - started,
    }
    with publish(out, "metrics") as folder:
        save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, folder / "model.safetensors")
        structure.save(folder / "structure.json")
        pq.write_table(pa.Table.from_pylist(history), folder / "history.parquet")
        write_json(folder / "metrics.json", metrics)
    kept.clear()
    say(f"retrain {structure.network}  test accuracy {metrics['test_accuracy']:.4f} of {len(labels):,} images")
    return metrics


def fit(
    model: nn.Module,
    structure: Structure,
    data: ImageSplit,
    recipe: RetrainRecipe,
    epochs: int,
    seed: int,
    record: Record,
    kept: Checkpoints | None = None,
) -> list[dict[str, Any]]:
    """The training loop; returns a row of history an epoch."""
    device = next(model.parameters()).device
    precision = resolve_precision(recipe.precision, device)
    layout = torch.channels_last
    if device.type == "cpu":
        reuse_memory()
        model = fold_norms(model)
    model.to(memory_format=layout).train()
    normalise = Normalise(data.info, device, layout)
    training, validation = _training(data, recipe), data.part("validation")
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    schedule_ = schedule(optimiser, recipe, epochs * training.steps(recipe.batch_size))
    random = torch.Generator().manual_seed(seed)

    def forward(batch: Tensor) -> Tensor:
        with autocast(device, precision):
            return model(normalise(batch)).float()

    progress = Progress(device, random)
    history: list[dict[str, Any]] = []
    lr = recipe.lr
    if state := kept.load() if kept else None:
        progress.restore(state)
        history, lr = state["history"], state["lr"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule_.load_state_dict(state["schedule"])
        for row in history:
            record(row)
    left = TimeLeft(progress.epoch - 1)
    for epoch in range(progress.epoch, epochs + 1):
        done = progress.begin(epoch)
        lr = lr if done else float(schedule_.get_last_lr()[0])
        for batch, target in training.epoch(recipe.batch_size, random, done):
            logits = forward(batch)
            loss = F.cross_entropy(logits, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule_.step()
            sums = torch.stack([loss.detach() * len(target), (logits.argmax(1) == target).sum()])
            progress.add(sums, len(target))
            if kept and kept.due(progress.step):
                state = {"history": history, "lr": lr, "model": model.state_dict()}
                state |= {"optimiser": optimiser.state_dict(), "schedule": schedule_.state_dict()}
                kept.save(progress.step, progress.state() | state)
        loss_mean, train_accuracy = progress.means()
        if not math.isfinite(loss_mean):
            raise UserError(f"training diverged in epoch {epoch}: the loss is {loss_mean}; lower retrain.lr")
        row = {"epoch": epoch, "loss": loss_mean, "train_accuracy": train_accuracy, "lr": lr}
        if not recipe.train_on_validation:
            row["val_accuracy"] = accuracy(predict(model, forward, validation), validation.labels)
        history.append(row)
        record(row)
        say(_line(structure.network, row, epoch, epochs, left))
    return history


def _training(data: ImageSplit, recipe: RetrainRecipe) -> Images:
    return data.part("train", "validation") if recipe.train_on_validation else data.part("train")


def _line(network: str, row: dict[str, Any], epoch: int, epochs: int, left: TimeLeft) -> str:
    validation = f"  validation accuracy {row['val_accuracy']:.4f}" if "val_accuracy" in row else ""
    return (
        f"retrain {network} epoch {epoch}/{epochs}  loss {row['loss']:.4f}  "
        f"train accuracy {row['train_accuracy']:.4f}{validation}  left {left(epoch, epochs)}"
    )


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> list[list[int]]:
    """Counts [true class][predicted class]."""
    counts = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return counts.view(classes, classes).tolist()


def check_fits(structure: Structure, data: ImageSplit) -> None:
    """Raise UserError unless the structure's images and classes are the split's."""
    spec = structure.model
    if spec.input_shape != data.input_shape or spec.num_classes != data.num_classes:
        wants = f"{'x'.join(map(str, spec.input_shape))} images of {spec.num_classes} classes"
        has = f"{'x'.join(map(str, data.input_shape))} images of {data.num_classes}"
        raise UserError(f"the structure is for {wants}, the split has {has}; extract one from this split's gates")


def load_model(folder: str | Path) -> tuple[nn.Module, Structure]:
    """The trained network of a ``model`` folder, on the CPU in evaluation mode; UserError if it is not one."""
    folder = require_result(folder, "metrics", "pfs retrain --structure FILE --split DIR OUT")
    structure = Structure.load(folder / "structure.json")
    model = structure.build()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), structure
