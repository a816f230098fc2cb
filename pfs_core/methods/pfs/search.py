"""The gate search of Wang et al. (2020), section 3, on random weights that are never updated.

The gates minimise cross_entropy(f(x; frozen weights, gates), y) + gamma * (mean |gate| - r)^2, where r is the target
ratio: by default, the budget as a fraction of the dense network.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F

from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.methods.config import TrainedConfig
from pfs_core.methods.context import SearchContext
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.history import SearchHistory
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.device import resolve_precision
from pfs_core.runtime.progress import EpochProgress, Record, TimeLeft
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.loop_state import LoopState
from pfs_core.training.pretrain import pretrain

logger = logging.getLogger(__package__)

ADVICE = "a lower search.lr or search.precision=fp32"


def run(context: SearchContext) -> MethodResult:
    """Learn the gates, after a training of the weights if ``pretrain_epochs`` asks for one.

    Raises:
        UserError: the network has nothing to prune, or the training or the search diverged.
    """
    config, data, checkpoints = context.config_as(PfsConfig), context.data, context.checkpoints
    pretrained = None
    if config.pretrain_epochs:
        training = TrainedConfig(epochs=config.pretrain_epochs, precision=config.precision).as_training()
        pretrained = pretrain(
            context.model, "search, training,", data, training, context.seed, context.record, checkpoints, ADVICE
        )
    network, history = gated(context)
    search_checkpoints = pretrained.search_checkpoints if pretrained else checkpoints
    images = learn_gates(network, history, data, config, context.seed, context.record, search_checkpoints)
    # The last evaluation stands in where none had few enough non-zero gates.
    best = history.best or {**history.rows[-1], "gates": network.by_group()}
    evaluated = len(history.rows) * len(data.part("validation").labels)
    cost = {"pretrain": pretrained.cost} if pretrained else {}
    before = pretrained.elapsed if pretrained else None
    cost["search"] = stage_cost(data.device, checkpoints.elapsed(), images + evaluated, images, before)
    logger.info(f"search takes the gates of step {best['step']:,}, of which {best['nonzero']:.1%} are above 0")
    return MethodResult(
        gates=best["gates"],
        history=history.rows,
        cost=cost,
        facts={
            "target_ratio": history.target,
            "precision": network.precision,
            "kept_epoch": best["epoch"],
            "kept_step": best["step"],
            "steps": history.rows[-1]["step"],
            "validation_accuracy": best["val_accuracy"],
            "nonzero": best["nonzero"],
        },
        pretraining=pretrained.history if pretrained else (),
    )


def gated(context: SearchContext) -> tuple[GatedNetwork, SearchHistory]:
    """Return the expanded network with gates, and the still empty history of its search."""
    config, graph, budget = context.config_as(PfsConfig), context.graph, context.budget
    target = config.target_ratio or min(1.0, budget.fraction(getattr(graph.cost(), budget.metric)))
    precision = resolve_precision(config.precision, context.data.device)
    network = GatedNetwork(context.model, graph.with_widths(context.widths), precision, config.lr, config.compile)
    return network, SearchHistory(graph, context.widths, budget, target, config)


def learn_gates(
    network: GatedNetwork,
    history: SearchHistory,
    data: ImageSplit,
    config: PfsConfig,
    seed: int,
    record: Record,
    checkpoints: Checkpoints | CheckpointStage | None = None,
) -> int:
    """Learn the gates of ``network``.

    Args:
        network: the network; its gates are those of the last step afterwards.
        history: takes the evaluations; it must be empty.
        data: the images.
        config: the settings of the search.
        seed: the seed of the order and augmentation of the images.
        record: called with every row of the history.
        checkpoints: where to resume from and save to; None for no checkpoints.

    Returns:
        The number of images that gradients were computed for.

    Raises:
        UserError: the search diverged.
    """
    target = history.target
    normalise = Normalise(data.info, data.device, torch.channels_last)
    training, validation = data.part("train"), data.part("validation")
    steps = training.steps(config.batch_size)
    total = config.epochs * steps
    evaluate_every = config.evaluate_every or steps
    random = torch.Generator().manual_seed(seed)
    loop = LoopState(data.device, random)
    if state := checkpoints.load() if checkpoints else None:
        loop.load_state_dict(state)
        network.load_state_dict(state["network"])
        history.load_state_dict(state["evaluations"])
        for row in history.rows:
            record(row)
    time_left = TimeLeft(loop.step)
    progress = EpochProgress("search", config.epochs, steps, loop.step)
    for epoch in range(loop.epoch, config.epochs + 1):
        for images, labels in training.epoch(config.batch_size, random, loop.begin(epoch)):
            cross_entropy = F.cross_entropy(network(normalise(images)), labels)
            regulariser = config.gamma * (network.mean() - target) ** 2
            network.step(cross_entropy + regulariser)
            loop.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            progress(epoch, loop.step, loop.images)
            if loop.step % evaluate_every == 0 or loop.step % steps == 0:
                row = history.add(evaluate(network, loop, normalise, validation), network.by_group())
                record(row)
                logger.info(f"search {_line(row, steps, config)}  left {time_left(loop.step, total)}")
                if history.settled():
                    logger.info(f"search ends after step {loop.step:,} of {total:,}: the structure has settled")
                    return loop.images
            if checkpoints and checkpoints.due(loop.step):
                loop.check([network.gates.values], "search", ADVICE)
                parts = {"network": network.state_dict(), "evaluations": history.state_dict()}
                checkpoints.save(loop.step, loop.state_dict() | parts)
    return loop.images


def evaluate(network: GatedNetwork, loop: LoopState, normalise: Normalise, validation: Images) -> dict[str, Any]:
    """Measure the gates as they are now.

    Returns:
        A row for :meth:`SearchHistory.add`; its losses are means over the epoch so far.

    Raises:
        UserError: the loss or the gates are no longer finite.
    """
    loop.check([network.gates.values], "search", ADVICE)
    cross_entropy, regulariser = loop.means()
    predictions = predict(network.module, lambda images: network(normalise(images)), validation)
    return {
        "epoch": loop.epoch,
        "step": loop.step,
        "loss": cross_entropy + regulariser,
        "cross_entropy": cross_entropy,
        "regulariser": regulariser,
        "mean_gate": network.mean().item(),
        "nonzero": network.nonzero(),
        "val_accuracy": accuracy(predictions, validation.labels),
    }


def _line(row: dict[str, Any], steps: int, config: PfsConfig) -> str:
    epochs = f"{row['step'] / steps:.1f}" if config.evaluate_every else str(row["epoch"])
    return (
        f"epoch {epochs}/{config.epochs}  loss {row['loss']:.3f}  open {row['nonzero']:.1%}  "
        f"moved {row['moved']:.1%}  val {row['val_accuracy']:.1%}"
    )
