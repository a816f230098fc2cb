"""The statistics of a network's BatchNorms, computed anew from given batches."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give the BatchNorms of ``model`` the mean of the statistics of ``batches``, and put it into evaluation mode.

    Each batch weighs the same, as in :func:`torch.optim.swa_utils.update_bn`, so they should be of one size. Unlike
    there, nothing but these layers is in training mode meanwhile: dropout before one would change its variance, and
    draw random numbers.

    Args:
        model: the network.
        batches: what it is called with.
    """
    model.eval()
    calls: Counter[nn.Module] = Counter()

    def average(module: Any, inputs: Any) -> None:
        # A momentum of None averages too, but a layer of one's own may hand it to a function that wants a number.
        calls[module] += 1
        module.momentum = 1 / calls[module]

    momenta, hooks = {}, []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            momenta[module] = module.momentum
            module.reset_running_stats()
            module.train()
            hooks.append(module.register_forward_pre_hook(average))
    for batch in batches:
        model(batch)
    for hook in hooks:
        hook.remove()
    for module, momentum in momenta.items():
        module.momentum = momentum
    model.eval()
