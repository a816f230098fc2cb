"""How long to train, and the learning rate on the way."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from pfs_core.config.stages import RetrainConfig
from pfs_core.structure import Structure


def planned_epochs(structure: Structure, config: RetrainConfig) -> int:
    """Epochs to train: the recipe's, times dense MACs / MACs with scratch-B (Liu et al. 2019), never fewer."""
    if not config.scratch_b:
        return config.epochs
    return max(config.epochs, round(config.epochs * structure.reference.macs / structure.cost.macs))


def schedule(optimiser: Optimizer, config: RetrainConfig, steps: int) -> LRScheduler:
    """The recipe's schedule over ``steps`` optimiser steps, to be stepped after each.

    A warm-up of w steps has lr * (s + 1) / (w + 1) at step s = 0, 1, ..., so that step w is the first at lr. The
    cosine falls from there to the end; milestones stay where they are in the whole training.
    """
    warmup = min(round(config.warmup_epochs / config.epochs * steps), steps - 1)
    falling: LRScheduler
    if config.schedule == "cosine":
        falling = CosineAnnealingLR(optimiser, T_max=steps - warmup)
    else:
        milestones = [round(fraction * steps) - warmup for fraction in config.milestones]
        falling = MultiStepLR(optimiser, milestones, config.factor)
    if not warmup:
        return falling
    rising = LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimiser, [rising, falling], [warmup])
