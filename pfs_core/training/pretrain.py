"""A training that goes before something else in the same step: of the network that a method starts from."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from pfs_core.config.stages import RetrainConfig
from pfs_core.data import ImageSplit
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.progress import Record
from pfs_core.training.checkpoints import Checkpoints, CheckpointStage
from pfs_core.training.fit import fit


class PretrainResult(NamedTuple):
    """What the training left.

    Attributes:
        weights: by the network's own names; the network has them too.
        history: a row an epoch; the last one's ``val_accuracy`` is that of the weights.
        cost: :func:`pfs_core.runtime.cost.stage_cost` of it.
        spent: until its end, for the cost of what follows.
        next: the checkpoints of what follows.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    cost: dict[str, Any]
    spent: dict[str, float]
    next: CheckpointStage


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
    """Train ``model`` on the training rows, unless a checkpoint says that this is done; arguments as of :func:`fit`.

    The names of what ``record`` gets, the epoch aside, start with ``pretrain_``.
    """

    def named(row: dict[str, Any]) -> None:
        record({key if key == "epoch" else f"pretrain_{key}": value for key, value in row.items()})

    state = checkpoints.load()
    if state and state["number"] == 2:
        before, going_on = state["before"], state["stage"]
        for row in before["history"]:
            named(row)
    else:
        stage, going_on = CheckpointStage(checkpoints, 1, {}, state["stage"] if state else None), None
        fitted = fit(model, name, data, config, config.epochs, seed, named, stage, advice=advice)
        before = {
            "weights": fitted.last,
            "history": fitted.history,
            "cost": stage_cost(data.device, checkpoints.elapsed(), fitted.images + fitted.validated, fitted.images),
            "spent": checkpoints.elapsed(),
        }
    model.load_state_dict(before["weights"])
    return PretrainResult(**before, next=CheckpointStage(checkpoints, 2, before, going_on))
