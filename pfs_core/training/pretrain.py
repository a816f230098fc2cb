"""A training that goes before something else in the same step: of the network that a method starts from."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from pfs_core.config.recipes import RetrainRecipe, TrainedRecipe
from pfs_core.data import ImageSplit
from pfs_core.runtime.cost import stage_cost
from pfs_core.runtime.progress import Record
from pfs_core.training.checkpoints import Checkpoints, Stage
from pfs_core.training.fit import fit


class First(NamedTuple):
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
    next: Stage


def train_first(
    model: nn.Module,
    name: str,
    data: ImageSplit,
    recipe: RetrainRecipe,
    seed: int,
    record: Record,
    kept: Checkpoints,
    advice: str,
) -> First:
    """Train ``model`` on the training rows, unless a checkpoint says that this is done; arguments as of :func:`fit`.

    The names of what ``record`` gets, the epoch aside, start with ``pretrain_``.
    """

    def named(row: dict[str, Any]) -> None:
        record({key if key == "epoch" else f"pretrain_{key}": value for key, value in row.items()})

    state = kept.load()
    if state and state["number"] == 2:
        before, going_on = state["before"], state["stage"]
        for row in before["history"]:
            named(row)
    else:
        stage, going_on = Stage(kept, 1, {}, state["stage"] if state else None), None
        fitted = fit(model, name, data, recipe, recipe.epochs, seed, named, stage, advice=advice)
        before = {
            "weights": fitted.last,
            "history": fitted.history,
            "cost": stage_cost(data.device, kept.spent(), fitted.images + fitted.validated, fitted.images),
            "spent": kept.spent(),
        }
    model.load_state_dict(before["weights"])
    return First(**before, next=Stage(kept, 2, before, going_on))


def as_training(recipe: TrainedRecipe) -> RetrainRecipe:
    """The training that a method starts with, on the training rows alone, as the loop takes it."""
    return RetrainRecipe(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=False,
        weight_decay=recipe.weight_decay,
        milestones=recipe.milestones,
        precision=recipe.precision,
        scratch_b=False,
        train_on_validation=False,
    )
