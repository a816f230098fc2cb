"""How long to train, and the learning rate on the way."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from pfs_core.recipes import RetrainRecipe
from pfs_core.structure import Structure


def planned_epochs(structure: Structure, recipe: RetrainRecipe) -> int:
    """Epochs to train: the recipe's, times dense MACs / MACs with scratch-B (Liu et al. 2019), never fewer."""
    if not recipe.scratch_b:
        return recipe.epochs
    return max(recipe.epochs, round(recipe.epochs * structure.reference.macs / structure.cost.macs))


def schedule(optimiser: Optimizer, recipe: RetrainRecipe, steps: int) -> LRScheduler:
    """The recipe's schedule over ``steps`` optimiser steps, to be stepped after each."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimiser, T_max=steps)
    return MultiStepLR(optimiser, [round(fraction * steps) for fraction in recipe.milestones], recipe.factor)
