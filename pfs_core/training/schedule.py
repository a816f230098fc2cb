"""The length of a training, and its learning-rate schedule."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from pfs_core.config.stages import RetrainConfig


def planned_epochs(config: RetrainConfig, fraction: float) -> int:
    """Return the epochs to train: the configured ones, with scratch-B divided by ``fraction``.

    Scratch-B (Liu et al. 2019, "Rethinking the Value of Network Pruning") gives the pruned network the compute of the
    dense network's training, so that both are compared at an equal training cost. It never shortens a training.

    Args:
        config: the settings of the training.
        fraction: the network's MACs as a fraction of the dense network's.
    """
    return max(config.epochs, round(config.epochs / fraction)) if config.scratch_b else config.epochs


def schedule(optimiser: Optimizer, config: RetrainConfig, steps: int) -> LRScheduler:
    """Return the configured schedule over ``steps`` optimiser steps; step it after each of them.

    A warm-up of w steps has lr * (s + 1) / (w + 1) at step s = 0, 1, ..., so that step w is the first one at lr. A
    cosine falls from there to the end of the training. Milestones are fractions of the whole training, warm-up
    included. A training stretched by scratch-B stretches its schedule and its warm-up alike.
    """
    # In a stretched training, ``steps`` is larger than ``config.epochs`` says; the warm-up keeps its share of it.
    warmup = min(round(config.warmup_epochs / config.epochs * steps), steps - 1)
    falling: LRScheduler
    if config.schedule == "cosine":
        falling = CosineAnnealingLR(optimiser, T_max=steps - warmup)
    else:
        milestones = [round(fraction * steps) - warmup for fraction in config.milestones]  # counted from its first step
        falling = MultiStepLR(optimiser, milestones, config.factor)
    if not warmup:
        return falling
    rising = LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimiser, [rising, falling], [warmup])
