"""Pretraining of the network that a method starts from, in the same step as the search."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from pfs_core.config.stages import RetrainConfig
from pfs_core.data import ImageSplit
from pfs_core.runtime.cost import StageCost, stage_cost
from pfs_core.runtime.progress import Record
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.fit import fit

PRETRAINING, SEARCH = 1, 2
"""Numbers of the stages in the checkpoints of a step."""


class PretrainResult(NamedTuple):
    """A trained network, and what the search after the training needs.

    Attributes:
        weights: the trained weights, ``{name: tensor}``; the network has them too.
        history: one row per epoch; the last row's ``val_accuracy`` is that of ``weights``.
        cost: the cost of the training.
        elapsed: the time that the step had taken when the training ended, as
            :meth:`pfs_core.training.checkpoints.Checkpoints.elapsed` returns it.
        search_checkpoints: the checkpoints of the search, which carry the result of the training along.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    cost: StageCost
    elapsed: dict[str, float]
    search_checkpoints: CheckpointStage


def pretrain(
    model: nn.Module,
    name: str,
    data: ImageSplit,
    config: RetrainConfig,
    seed: int,
    record: Record,
    checkpoints: Checkpoints,
    advice: str,
) -> PretrainResult:
    """Train ``model`` on the training rows, or load its weights if a checkpoint shows that this has been done.

    Args:
        model: the network, on the device of ``data``; it has the trained weights afterwards.
        name: what log lines call the training.
        data: the images.
        config: the settings of the training.
        seed: the seed of the order and augmentation of the images.
        record: called with every row of the history, whose names but ``epoch`` get the prefix ``pretrain_``.
        checkpoints: the checkpoints of the whole step.
        advice: what the user could try if the training diverges.

    Raises:
        UserError: the training diverged.
    """

    def prefixed_record(row: dict[str, Any]) -> None:
        record({key if key == "epoch" else f"pretrain_{key}": value for key, value in row.items()})

    state = checkpoints.load()
    if state and state["number"] == SEARCH:
        before, search_state = state["before"], state["stage"]
        for row in before["history"]:
            prefixed_record(row)
    else:
        stage = CheckpointStage(checkpoints, PRETRAINING, {}, state["stage"] if state else None)
        search_state = None
        fitted = fit(model, name, data, config, config.epochs, seed, prefixed_record, stage, advice=advice)
        cost = stage_cost(data.device, checkpoints.elapsed(), fitted.images + fitted.validated, fitted.images)
        before = {
            "weights": fitted.last,
            "history": fitted.history,
            "cost": cost.model_dump(),
            "spent": checkpoints.elapsed(),
        }
    model.load_state_dict(before["weights"])
    return PretrainResult(
        weights=before["weights"],
        history=before["history"],
        cost=StageCost(**before["cost"]),
        elapsed=before["spent"],
        search_checkpoints=CheckpointStage(checkpoints, SEARCH, before, search_state),
    )
