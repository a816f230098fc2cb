"""How fast a network is trained on this machine, from a few timed steps."""

import time

import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.config.stages import RetrainConfig
from pfs_core.nn.folded_batchnorm import fold_norms
from pfs_core.nn.subsampled_conv import subsample_first
from pfs_core.runtime.device import autocast, resolve_precision, reuse_memory

_IMAGES = 32
"""Images of a timed step, at most: the rate is about that of larger batches then."""
_SECONDS = 0.5
"""Steps are timed for so long, and one at least."""


def training_rate(
    model: nn.Module, shape: tuple[int, int, int], classes: int, config: RetrainConfig, device: torch.device
) -> float:
    """Return the images per second of forward and backward passes, after one that warms up.

    Args:
        model: the network; its weights stay as they are, the statistics of its BatchNorms do not.
        shape: channels, height and width of an image.
        classes: the number of logits.
        config: the settings of the training.
        device: what trains.
    """
    size = max(2, min(_IMAGES, config.batch_size // config.accumulate))
    precision = resolve_precision(config.precision, device)
    if device.type == "cpu":
        reuse_memory()
        model = subsample_first(fold_norms(model))
    model = model.to(device, memory_format=torch.channels_last).train()
    random = torch.Generator().manual_seed(0)
    images = torch.randn(size, *shape, generator=random).to(device, memory_format=torch.channels_last)
    labels = torch.randint(classes, (size,), generator=random).to(device)

    def step() -> float:
        with autocast(device, precision):
            logits = model(images).float()
        F.cross_entropy(logits, labels).backward()
        return float(logits.sum())  # waits for the device

    step()
    steps, start = 0, time.perf_counter()
    while not steps or time.perf_counter() - start < _SECONDS:
        step()
        steps += 1
    return size * steps / (time.perf_counter() - start)
