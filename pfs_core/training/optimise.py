"""The optimiser of the retraining: SGD by a config, and the moving average of the weights."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pfs_core.config.stages import RetrainConfig
from pfs_core.training.schedule import schedule

Tensors = tuple[Tensor, ...] | list[Tensor]


class Optimisation:
    """Everything that changes the weights of a network from one step to the next.

    Attributes:
        model: the network that is trained.
        network: the one that is validated, tested and saved: the average of its weights, or ``model`` itself.
        watched: the tensors that must stay finite: weights, and buffers but for those that never were.

    Args:
        model: in its final place and layout.
        config: see :class:`RetrainConfig`.
        steps: optimiser steps of the whole training.
    """

    def __init__(self, model: nn.Module, config: RetrainConfig, steps: int) -> None:
        self.model = model
        self._clip_norm = config.clip_norm
        self._optimiser = torch.optim.SGD(
            parameter_groups(model, config),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            weight_decay=config.weight_decay,
        )
        self._schedule = schedule(self._optimiser, config, steps)
        self._average = averaged(model, config.ema) if config.ema is not None else None
        self.network = self._average.module if self._average is not None else model
        self.watched = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.isfinite().all())]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def step(self) -> None:
        """Take a step along the gradients, which are gone then."""
        if self._clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint; the weights included."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def parameter_groups(model: nn.Module, config: RetrainConfig) -> list[dict[str, Any]]:
    """The parameters as SGD takes them: one group, or those of one dimension apart, without weight decay.

    Scales and shifts of normalisations and biases are the parameters of one dimension.
    """
    if config.decay_norm_and_bias:
        return [{"params": list(model.parameters())}]
    decayed = [weights for weights in model.parameters() if weights.ndim > 1]
    spared = [weights for weights in model.parameters() if weights.ndim <= 1]
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy that follows ``model``: average = decay * average + (1 - decay) * weights, from the first update on.

    Statistics of BatchNorms are averaged likewise, so that they fit the weights; whole numbers are copied.
    """
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averages: Tensors, current: Tensors, count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            average(averages, current, count)
        else:
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def micro_batches(
    images: Tensor, labels: Tensor, config: RetrainConfig, world: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of a step in parts of batch_size / world / accumulate, rounded up; the last may be smaller.

    A last part of one image (which BatchNorm cannot train on) joins the one before it.
    """
    size = -(-config.batch_size // (world * config.accumulate))
    starts = list(range(0, len(labels), size))
    if len(starts) > 1 and starts[-1] == len(labels) - 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(labels)], strict=True):
        yield images[start:stop], labels[start:stop]
