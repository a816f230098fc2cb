"""The gate search of Wang et al. (2020), section 3: minutes on random weights that are never updated.

loss = cross_entropy(f(x; frozen weights, gates), y) + gamma * (mean gate - r)^2
"""

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
from pfs_core.runtime.progress import Record, TimeLeft, say
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.loop_state import LoopState
from pfs_core.training.pretrain import pretrain

ADVICE = "a lower search.lr or search.precision=fp32"


def run(context: SearchContext) -> MethodResult:
    """Learn the gates, after a training of the weights where ``pretrain_epochs`` asks for one.

    Raises:
        UserError: the network has nothing to prune, or the loss is no longer finite.
    """
    config, data, checkpoints = context.config_as(PfsConfig), context.data, context.checkpoints
    pretrained = None
    if config.pretrain_epochs:
        training = TrainedConfig(epochs=config.pretrain_epochs, precision=config.precision).as_training()
        pretrained = pretrain(
            context.model, "search, training,", data, training, context.seed, context.record, checkpoints, ADVICE
        )
    network, history = gated(context)
    stage = pretrained.next if pretrained else checkpoints
    images = learn_gates(network, history, data, config, context.seed, context.record, stage)
    best = history.best or {**history.rows[-1], "gates": network.by_group()}
    evaluated = len(history.rows) * len(data.part("validation").labels)
    cost = {"pretrain": pretrained.cost} if pretrained else {}
    before = pretrained.spent if pretrained else None
    cost["search"] = stage_cost(data.device, checkpoints.elapsed(), images + evaluated, images, before)
    say(f"search {best['nonzero']:.1%} of the gates of step {best['step']:,} are above 0")
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
    """The expanded network with gates, and the history that its search will fill."""
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
    """The loop itself; it fills ``history`` and returns the number of images learned from.

    Raises:
        UserError: the loss is no longer finite.
    """
    target = history.target
    normalise = Normalise(data.info, data.device, torch.channels_last)
    training, validation = data.part("train"), data.part("validation")
    steps = training.steps(config.batch_size)
    total = config.epochs * steps
    every = config.evaluate_every or steps
    random = torch.Generator().manual_seed(seed)
    loop = LoopState(data.device, random)
    if state := checkpoints.load() if checkpoints else None:
        loop.load_state_dict(state)
        network.load_state_dict(state["network"])
        history.load_state_dict(state["evaluations"])
        for row in history.rows:
            record(row)
    left = TimeLeft(loop.step)
    for epoch in range(loop.epoch, config.epochs + 1):
        for images, labels in training.epoch(config.batch_size, random, loop.begin(epoch)):
            cross_entropy = F.cross_entropy(network(normalise(images)), labels)
            regulariser = config.gamma * (network.mean() - target) ** 2
            network.step(cross_entropy + regulariser)
            loop.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            if loop.step % every == 0 or loop.step % steps == 0:
                row = history.add(evaluate(network, loop, normalise, validation), network.by_group())
                record(row)
                say(f"search {_line(row, steps, config)}  left {left(loop.step, total)}")
                if history.settled():
                    say(f"search ends after step {loop.step:,} of {total:,}: the structure has settled")
                    return loop.images
            if checkpoints and checkpoints.due(loop.step):
                loop.check([network.gates.values], "search", ADVICE)
                parts = {"network": network.state_dict(), "evaluations": history.state_dict()}
                checkpoints.save(loop.step, loop.state_dict() | parts)
    return loop.images


def evaluate(network: GatedNetwork, loop: LoopState, normalise: Normalise, validation: Images) -> dict[str, Any]:
    """A row of the history; UserError if the loss is no longer finite."""
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
        f"epoch {epochs}/{config.epochs}  loss {row['loss']:.4f}  mean gate {row['mean_gate']:.3f}  "
        f"non-zero {row['nonzero']:.3f}  moved {row['moved']:.3f}  validation accuracy {row['val_accuracy']:.4f}"
    )
