"""How fast a network is trained on this machine and in how much memory, from a few steps."""

import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pfs_core.config.stages import RetrainConfig
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.padded_conv import pad_first
from pfs_core.nn.subsampled_conv import subsample_first
from pfs_core.runtime.device import autocast, resolve_precision, reuse_memory
from pfs_core.training.memory_layout import layout_for, with_layout

_IMAGES, _PIXELS = 32, 2**17
"""Images of a step, at most, or as many small ones as have so many pixels: the rate is about that of larger batches."""
_SECONDS = 0.5
"""Steps are timed for so long, and one at least."""


class TrainingRate(NamedTuple):
    """What a step of training takes.

    Attributes:
        images: images per second, forward and backward.
        bytes_per_image: what is kept of the forward pass for the backward pass.
    """

    images: float
    bytes_per_image: float


def training_rate(
    model: nn.Module, shape: tuple[int, int, int], classes: int, config: RetrainConfig, device: torch.device
) -> TrainingRate:
    """Train a network for some steps on random images, after one that warms up; the quickest of them counts.

    The others have waited for what else the machine is doing, such as loading libraries for the steps of a run.

    Args:
        model: the network; its weights stay as they are, the statistics of its BatchNorms do not.
        shape: channels, height and width of an image.
        classes: the number of logits.
        config: the settings of the training.
        device: what trains.

    Raises:
        UserError: the network cannot be trained.
    """
    most = max(_IMAGES, _PIXELS // (shape[1] * shape[2]))
    size = max(2, min(most, config.batch_size // config.accumulate))
    precision = resolve_precision(config.precision, device)
    if device.type == "cpu":
        reuse_memory()
        model = pad_first(subsample_first(fold_norms(model)))
    model = model.to(device)
    layout = layout_for(model, shape, precision)
    with_layout(model, layout).train()
    random = torch.Generator().manual_seed(0)
    images = torch.randn(size, *shape, generator=random).to(device, memory_format=layout)
    labels = torch.randint(classes, (size,), generator=random).to(device)

    def step() -> float:
        with autocast(device, precision):
            logits = model(images).float()
        F.cross_entropy(logits, labels).backward()
        return float(logits.detach().sum())  # waits for the device

    kept = SavedBytes(model)
    with saved_tensors_hooks(kept.add, lambda tensor: tensor):
        step()
    quickest = math.inf
    end = time.perf_counter() + _SECONDS
    while quickest == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        quickest = min(quickest, time.perf_counter() - start)
    return TrainingRate(size / quickest, kept.total / size)


class SavedBytes:
    """Counts the memory of the tensors that autograd keeps, each once and without the network's own."""

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self._kept: list[Tensor] = []  # as long as they live, no other tensor has their address
        self._known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is saved."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self._kept.append(tensor)
            self.total += storage.nbytes()
        return tensor
