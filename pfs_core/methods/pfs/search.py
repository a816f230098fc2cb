"""The gate search of Wang et al. (2020), section 3, on random weights that are never updated.

The gates minimise cross_entropy(f(x; frozen weights, gates), y) + gamma * (mean |gate| - r)^2, where r is the target
ratio: by default, the budget as a fraction of the dense network.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pfs_core.config.seed import part_seed
from pfs_core.data import ImageSplit
from pfs_core.data.augment import Normalise
from pfs_core.data.images import Images
from pfs_core.methods.config import TrainedConfig
from pfs_core.methods.context import ADVICE, SearchContext
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.draws import mean_profile, row_of_draw
from pfs_core.methods.pfs.history import SearchHistory
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.result import MethodResult
from pfs_core.runtime.cost import StageCost, stage_cost
from pfs_core.runtime.device import resolve_precision
from pfs_core.runtime.progress import EpochProgress, Record, TimeLeft
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.loop_state import LoopState
from pfs_core.training.pretrain import pretrain

logger = logging.getLogger(__package__)

_PRETRAIN_ADVICE = "search.precision=fp32, or search.pretrain_epochs=0"
"""What may help where a training before the search diverges, whose learning rate is no setting."""


def run(context: SearchContext) -> MethodResult:
    """Learn the gates, after a training of the weights if ``pretrain_epochs`` asks for one.

    Raises:
        UserError: the network has nothing to prune, or the training or the search diverged.
    """
    config, data, checkpoints = context.config_as(PfsConfig), context.data, context.checkpoints
    if config.draws > 1:
        return _run_draws(context)
    pretrained = None
    if config.pretrain_epochs:
        training = TrainedConfig(epochs=config.pretrain_epochs, precision=config.precision).as_training()
        pretrained = pretrain(
            context.model,
            "search, training,",
            data,
            training,
            context.seed,
            context.record,
            checkpoints,
            _PRETRAIN_ADVICE,
        )
    learned = _learn(context, pretrained.search_checkpoints if pretrained else checkpoints)
    cost = {"pretrain": pretrained.cost} if pretrained else {}
    before = pretrained.elapsed if pretrained else None
    cost["search"] = _cost([learned], context, before)
    return MethodResult(
        gates=learned.gates,
        history=learned.rows,
        cost=cost,
        facts={
            "target_ratio": target_ratio(context),
            "kept_epoch": learned.best["epoch"],
            "kept_step": learned.best["step"],
            "steps": learned.rows[-1]["step"],
            "validation_accuracy": learned.best["val_accuracy"],
            "nonzero": learned.best["nonzero"],
        },
        pretraining=pretrained.history if pretrained else (),
    )


def _run_draws(context: SearchContext) -> MethodResult:
    """Learn gates on several draws of the weights, one after the other, and average them by :func:`mean_profile`."""
    config, checkpoints = context.config_as(PfsConfig), context.checkpoints
    state = checkpoints.load()
    done = [_Learned(**draw) for draw in state["before"]["draws"]] if state else []
    for row in (row for draw in done for row in draw.rows):
        context.record(row)
    resumed = state["stage"] if state else None
    for number in range(len(done) + 1, config.draws + 1):
        as_row = partial(row_of_draw, number=number, before=done[-1].rows[-1] if done else {})
        stage = CheckpointStage(checkpoints, number, {"draws": [draw._asdict() for draw in done]}, resumed)
        drawn = context.drawn(part_seed(context.seed, config.draws, number))
        done.append(_learn(drawn, stage, f"search draw {number}/{config.draws}", as_row))
        resumed = None
    gates = mean_profile([draw.gates for draw in done])
    return MethodResult(
        gates=gates,
        history=[row for draw in done for row in draw.rows],
        cost={"search": _cost(done, context)},
        facts={
            "target_ratio": target_ratio(context),
            "kept_epochs": [draw.best["epoch"] for draw in done],
            "kept_steps": [draw.best["step"] for draw in done],
            "steps": done[-1].rows[-1]["step"],
            "validation_accuracy": sum(draw.best["val_accuracy"] for draw in done) / len(done),
            "nonzero": float((torch.cat(list(gates.values())) > 0).float().mean()),
        },
    )


class _Learned(NamedTuple):
    """The result of a search on one draw of the weights.

    Attributes:
        gates: those that the search takes, ``{group: float32 [gates]}``.
        best: the evaluation that they are of.
        rows: all evaluations.
        images: the number of images that gradients were computed for.
    """

    gates: dict[str, Tensor]
    best: dict[str, Any]
    rows: list[dict[str, Any]]
    images: int


def _learn(
    context: SearchContext,
    checkpoints: Checkpoints | CheckpointStage,
    name: str = "search",
    as_row: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> _Learned:
    """Learn gates on the network of ``context``.

    Args:
        context: what to search.
        checkpoints: where to resume from and save to.
        name: what log lines call the search.
        as_row: turns an evaluation into a row of the history.
    """
    network, history = gated(context)
    images = learn_gates(
        network,
        history,
        context.data,
        context.config_as(PfsConfig),
        context.seed,
        lambda row: context.record(as_row(row)),
        checkpoints,
        name,
    )
    # The last evaluation stands in where none had few enough non-zero gates.
    best = history.best or {**history.rows[-1], "gates": network.by_group()}
    logger.info(f"{name} takes the gates of step {best['step']:,}, of which {best['nonzero']:.1%} are above 0")
    gates = best.pop("gates")
    return _Learned(gates, as_row(best), [as_row(row) for row in history.rows], images)


def _cost(learned: Sequence[_Learned], context: SearchContext, before: Mapping[str, float] | None = None) -> StageCost:
    """Return the cost of the search, which started after ``before``."""
    images = sum(draw.images for draw in learned)
    evaluated = sum(len(draw.rows) for draw in learned) * len(context.data.part("validation").labels)
    return stage_cost(context.data.device, context.checkpoints.elapsed(), images + evaluated, images, before)


def target_ratio(context: SearchContext) -> float:
    """Return the target ratio of the regulariser: by default, the budget as a fraction of the dense network."""
    config, budget = context.config_as(PfsConfig), context.budget
    return config.target_ratio or min(1.0, budget.fraction(getattr(context.graph.cost(), budget.metric)))


def gated(context: SearchContext) -> tuple[GatedNetwork, SearchHistory]:
    """Return the expanded network with gates, and the still empty history of its search."""
    config, graph = context.config_as(PfsConfig), context.graph
    precision = resolve_precision(config.precision, context.data.device)
    network = GatedNetwork(context.model, graph.with_widths(context.widths), precision, config.lr, config.compile)
    return network, SearchHistory(graph, context.widths, context.budget, target_ratio(context), config)


def learn_gates(
    network: GatedNetwork,
    history: SearchHistory,
    data: ImageSplit,
    config: PfsConfig,
    seed: int,
    record: Record,
    checkpoints: Checkpoints | CheckpointStage | None = None,
    name: str = "search",
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
        name: what log lines and messages call the search.

    Returns:
        The number of images that gradients were computed for.

    Raises:
        UserError: the search diverged.
    """
    target = history.target
    normalise = Normalise(data.info, data.device, network.layout)
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
    progress = EpochProgress(name, config.epochs, steps, loop.step, loop.images)
    for epoch in range(loop.epoch, config.epochs + 1):
        for images, labels in training.epoch(config.batch_size, random, loop.begin(epoch)):
            cross_entropy = F.cross_entropy(network(normalise(images)), labels)
            regulariser = config.gamma * (network.mean() - target) ** 2
            network.step(cross_entropy + regulariser)
            loop.add(torch.stack([cross_entropy.detach(), regulariser.detach()]) * len(labels), len(labels))
            progress(epoch, loop.step, loop.images)
            if loop.step % evaluate_every == 0 or loop.step % steps == 0:
                row = history.add(evaluate(network, loop, normalise, validation, name), network.by_group())
                record(row)
                logger.info(f"{name} {_line(row, steps, config)}  left {time_left(loop.step, total)}")
                if history.settled():
                    logger.info(f"{name} ends after step {loop.step:,} of {total:,}: the structure has settled")
                    return loop.images
            if checkpoints and checkpoints.due(loop.step):
                loop.check([network.gates.values], name, ADVICE)
                parts = {"network": network.state_dict(), "evaluations": history.state_dict()}
                checkpoints.save(loop.step, loop.state_dict() | parts)
    return loop.images


def evaluate(
    network: GatedNetwork, loop: LoopState, normalise: Normalise, validation: Images, name: str = "search"
) -> dict[str, Any]:
    """Measure the gates as they are now.

    Returns:
        A row for :meth:`SearchHistory.add`; its losses are means over the epoch so far.

    Raises:
        UserError: the loss or the gates are no longer finite.
    """
    loop.check([network.gates.values], name, ADVICE)
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
        f"epoch {epochs}/{config.epochs}  loss {row['loss']:.3f}  open {row['nonzero']:.0%}  "
        f"moved {row['moved']:.1%}  val {row['val_accuracy']:.1%}"
    )
