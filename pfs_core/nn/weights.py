"""The weights of a network, as files take them."""

import torch
from torch import Tensor, nn


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state of a model, contiguous, on the CPU; weights that layers share are there twice."""
    return {
        name: weights.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, weights in model.state_dict().items()
    }
