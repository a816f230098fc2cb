"""The optimiser of a training: SGD with its schedule, and the moving average of the weights."""

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
    """SGD, learning-rate schedule, gradient clipping and moving average of one training.

    Attributes:
        model: the network that is trained.
        network: the network that is validated, tested and saved: the moving average of ``model`` if the configuration
            asks for one, else ``model`` itself.
        watched: the tensors that must stay finite: all weights, and the buffers that are finite at the start.

    Args:
        model: the network, already on its device and in its memory layout.
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
            nesterov=config.nesterov and config.momentum > 0,  # torch refuses Nesterov without momentum
            weight_decay=config.weight_decay,
        )
        self._schedule = schedule(self._optimiser, config, steps)
        self._average = averaged(model, config.ema) if config.ema is not None else None
        self.network = self._average.module if self._average is not None else model
        self.watched = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.isfinite().all())]

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def step(self) -> None:
        """Take one step with the accumulated gradients, and clear them."""
        if self._clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, weights and momentum buffers included."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the result of :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def parameter_groups(model: nn.Module, config: RetrainConfig) -> list[dict[str, Any]]:
    """Group the parameters for SGD.

    Returns:
        One group with all parameters, or with ``decay_norm_and_bias=false`` a second group without weight decay. It has
        the parameters of one dimension, which are the biases and the scales and shifts of normalisations.
    """
    if config.decay_norm_and_bias:
        return [{"params": list(model.parameters())}]
    decayed = [weights for weights in model.parameters() if weights.ndim > 1]
    not_decayed = [weights for weights in model.parameters() if weights.ndim <= 1]
    return [{"params": decayed}, {"params": not_decayed, "weight_decay": 0.0}]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of ``model``: average = decay * average + (1 - decay) * weights.

    The first update copies the weights. BatchNorm's statistics are averaged in the same way, since the average needs
    statistics that fit its weights; integer buffers are copied.
    """
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averages: Tensors, current: Tensors, count: Tensor | int) -> None:
        # Torch calls this once per device and dtype: all tensors are floating point, or none is.
        if averages[0].is_floating_point():
            average(averages, current, count)
        else:
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def micro_batches(
    images: Tensor, labels: Tensor, config: RetrainConfig, world: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Split the images of one step of this process into micro-batches.

    A micro-batch has batch_size / world / accumulate images, rounded up; the last one may be smaller. A last one of a
    single image joins the one before it, since BatchNorm cannot train on one image.

    Args:
        images: [n, C, H, W].
        labels: [n] or, where images are mixed, [n, classes].
        config: see :class:`RetrainConfig`.
        world: processes that train together.

    Yields:
        The images and the labels of a micro-batch.
    """
    size = -(-config.batch_size // (world * config.accumulate))
    starts = list(range(0, len(labels), size))
    if len(starts) > 1 and starts[-1] == len(labels) - 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(labels)], strict=True):
        yield images[start:stop], labels[start:stop]
