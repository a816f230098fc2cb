"""The training loop."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pfs_core.config.stages import RetrainConfig
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.data.image_augmentation import image_augmentation
from pfs_core.data.images import Images, batch_borders
from pfs_core.errors import UserError
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.padded_conv import pad_first
from pfs_core.nn.subsampled_conv import subsample_first
from pfs_core.nn.weights import weights_of
from pfs_core.runtime.device import autocast, resolve_precision, reuse_memory
from pfs_core.runtime.distributed import ALONE, Ranks
from pfs_core.runtime.progress import EpochProgress, Record, TimeLeft
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.loop_state import LoopState
from pfs_core.training.loss import class_weights, hits, mean_loss
from pfs_core.training.memory_layout import layout_for, with_layout
from pfs_core.training.mixing import Mixing
from pfs_core.training.optimise import Optimisation, micro_batches

logger = logging.getLogger(__package__)

ADVICE = "a lower retrain.lr, a longer retrain.warmup_epochs, retrain.clip_norm or retrain.precision=fp32"


@dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        last: the weights after the last epoch, ``{name: tensor}`` by the network's own names, on the CPU.
        best: the validation with the highest accuracy, as ``epoch``, ``val_accuracy`` and ``weights``; None if the
            training was not validated.
        history: one row per epoch.
        images: images that this process trained on, counted once per epoch.
        validated: images that all processes validated on, counted once per validation.
    """

    last: dict[str, Tensor]
    best: dict[str, Any] | None
    history: list[dict[str, Any]]
    images: int
    validated: int


def fit(
    model: nn.Module,
    name: str,
    data: ImageSplit,
    config: RetrainConfig,
    epochs: int,
    seed: int,
    record: Record,
    checkpoints: Checkpoints | CheckpointStage | None = None,
    ranks: Ranks = ALONE,
    before_step: Callable[[], None] | None = None,
    advice: str = ADVICE,
) -> Fitted:
    """Train a network. Several processes train on their shares of every batch, with the mean of their gradients.

    Args:
        model: the network, on the device of ``data``. The trained weights are to be taken from the result.
        name: what log lines call the training.
        data: the images.
        config: the settings of the training, except for its length.
        epochs: how long to train.
        seed: the seed of the order and augmentation of the images.
        record: called with every row of the history.
        checkpoints: where to resume from and save to; None for no checkpoints.
        ranks: the processes that train together.
        before_step: called before each optimiser step; it may change the gradients of the parameters of ``model``.
        advice: what the user could try if the training diverges.

    Raises:
        UserError: the network cannot be trained, or the training diverged, or does not work with so many processes or
            on this device.
    """
    model, forward = prepared(model, data, config, ranks)
    training = training_images(data, config, ranks)
    validation = data.part("validation", rank=ranks.rank, world=ranks.world)
    optimisation = Optimisation(model, config, epochs * training.steps(config.batch_size))
    trained = parallel(model, data.device, ranks, config)
    mix, weights = Mixing(config, data.num_classes), class_weights(config, training.labels, data.num_classes)
    random = torch.Generator().manual_seed(seed)
    loop = LoopState(data.device, random, ranks)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    lr = config.lr
    if state := checkpoints.load() if checkpoints else None:
        loop.load_state_dict(state)
        optimisation.load_state_dict(state)
        history, best, lr = state["history"], state["best"], state["lr"]
        for row in history:
            record(row)
    time_left = TimeLeft(loop.epoch - 1)
    progress = EpochProgress(name, epochs, training.steps(config.batch_size), loop.step, loop.images * ranks.world)
    sizes = np.diff(batch_borders(len(training), config.batch_size, ranks.world)).tolist()
    for epoch in range(loop.epoch, epochs + 1):
        done = loop.begin(epoch)
        lr = lr if done else optimisation.lr
        batches = training.epoch(config.batch_size, random, done)
        for size, (images, labels) in zip(sizes[done:], batches, strict=True):
            batch, target = mix(images, labels, seed, loop.step, ranks.rank)
            sums = backward(trained, forward, batch, target, size, config, ranks.world, weights)
            if before_step:
                before_step()
            optimisation.step()
            loop.add(sums, len(target))
            progress(epoch, loop.step, loop.images * ranks.world)
            if checkpoints and checkpoints.due(loop.step):
                # A checkpoint with weights that are not finite could not be resumed from. The check waits for the
                # device, so it is made here and after each epoch, and not in every step.
                loop.check(optimisation.watched, "training", advice)
                state = {"history": history, "best": best, "lr": lr}
                checkpoints.save(loop.step, loop.state_dict() | optimisation.state_dict() | state)
        loop.check(optimisation.watched, "training", advice)
        loss, train_accuracy = loop.means()
        row = {"epoch": epoch, "loss": loss, "train_accuracy": train_accuracy, "lr": lr}
        if not config.train_on_validation:
            row["val_accuracy"] = None
            if epoch % config.validate_every == 0 or epoch == epochs:
                predictions = predict(optimisation.network, partial(forward, optimisation.network), validation, ranks)
                row["val_accuracy"] = val_accuracy = accuracy(predictions, validation.labels)
                if best is None or val_accuracy > best["val_accuracy"]:
                    best = {"epoch": epoch, "val_accuracy": val_accuracy, "weights": weights_of(optimisation.network)}
        history.append(row)
        record(row)
        logger.info(_line(name, row, epochs, time_left))
    validations = sum(row.get("val_accuracy") is not None for row in history)
    return Fitted(weights_of(optimisation.network), best, history, loop.images, validations * len(validation.labels))


def prepared(
    model: nn.Module, data: ImageSplit, config: RetrainConfig, ranks: Ranks = ALONE
) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    """Prepare a network for training: faster layers and memory layout, training mode.

    Returns:
        The prepared network, which shares its parameters with ``model``; and a function of this network (or a copy of
        it) and images, uint8 [N, C, H, W], that computes logits, float32 [N, classes], in the configured precision.

    Raises:
        UserError: the network cannot be trained, or ``config.sync_bn`` is set on a CPU.
    """
    precision = resolve_precision(config.precision, data.device)
    if data.device.type == "cpu":
        reuse_memory()
        model = pad_first(subsample_first(fold_norms(model)))
    layout = layout_for(model, data.input_shape, precision)
    if config.sync_bn and ranks.world > 1:
        model = with_shared_statistics(model, data.device)
    with_layout(model, layout).train()
    normalise = Normalise(data.info, data.device, layout)

    def forward(network: nn.Module, images: Tensor) -> Tensor:
        with autocast(data.device, precision):
            out: Tensor = network(normalise(images)).float()
            return out

    return model, forward


def training_parts(config: RetrainConfig) -> tuple[str, ...]:
    """Return the names of the parts of the split that the configuration trains on."""
    return ("train", "validation") if config.train_on_validation else ("train",)


def training_images(data: ImageSplit, config: RetrainConfig, ranks: Ranks = ALONE) -> Images:
    """Return this process's share of the images that the configuration trains on."""
    return data.part(
        *training_parts(config),
        rank=ranks.rank,
        world=ranks.world,
        augment=image_augmentation(config, data.info.mean),
        balanced=config.balanced_sampling,
    )


def with_shared_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """Convert the BatchNorms of ``model`` to ones that normalise over the batches of all processes.

    Raises:
        UserError: the device is a CPU, for which torch has no such layer.
    """
    if device.type == "cpu":
        raise UserError("retrain.sync_bn=true needs GPUs; leave it out on CPUs")
    result: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return result


def parallel(model: nn.Module, device: torch.device, ranks: Ranks, config: RetrainConfig) -> nn.Module:
    """Wrap ``model`` such that backward passes average the gradients over the processes.

    Raises:
        UserError: some process would get micro-batches of fewer than 2 images, on which BatchNorm cannot train.
    """
    if ranks.world == 1:
        return model
    if config.batch_size < 2 * config.accumulate * ranks.world:
        raise UserError(
            f"retrain.batch_size={config.batch_size} is of all {ranks.world} processes together; "
            f"give at least {2 * config.accumulate * ranks.world}"
        )
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def backward(
    trained: nn.Module,
    forward: Callable[[nn.Module, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    size: int,
    config: RetrainConfig,
    world: int = 1,
    weights: Tensor | None = None,
) -> Tensor:
    """Add the gradient of the mean loss over the images of one step to the gradients of the weights.

    The processes' gradients are averaged by DistributedDataParallel as if their shares were equal, hence the factor.

    Args:
        trained: the network, or its DistributedDataParallel.
        forward: computes logits from ``trained`` and images.
        images: [n, C, H, W], this process's share of the images of the step: uint8, or float32 where they are mixed.
        labels: int64 [n], or where images are mixed the probabilities of the classes, float32 [n, classes].
        size: images of the step, of all processes together.
        config: see :class:`RetrainConfig`.
        world: processes that train together.
        weights: the weights of the classes, float32 [classes]; None if all weigh the same.

    Returns:
        float [2]: the sum of the losses and the number of images that are classified right, of this process.
    """
    sums = torch.zeros(2, device=labels.device)
    parts = list(micro_batches(images, labels, config, world))
    for number, (batch, target) in enumerate(parts, 1):
        # The processes exchange their gradients once per step, in the backward pass of the last micro-batch.
        waits = number < len(parts) and isinstance(trained, DistributedDataParallel)
        with trained.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            logits = forward(trained, batch)
            loss = mean_loss(logits, target, config, weights)
            (loss * (len(target) * world / size)).backward()
        sums = sums + torch.stack([loss.detach() * len(target), hits(logits, target)])
    return sums


def _line(name: str, row: dict[str, Any], epochs: int, time_left: TimeLeft) -> str:
    validation = f"  val {row['val_accuracy']:.1%}" if row.get("val_accuracy") is not None else ""
    return (
        f"{name} epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  train {row['train_accuracy']:.1%}{validation}  "
        f"left {time_left(row['epoch'], epochs)}"
    )
