"""The trained network as users call it: pixels in, logits out."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pfs_core.data import load_split
from pfs_core.training.retrain import load_model


class Deployable(nn.Module):
    """A network with its own normalisation: float32 pixels in 0-255, [N, C, H, W], to logits [N, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        return self.network((images - self.mean) / self.std)


def deployable(model_dir: str | Path, split_dir: str | Path) -> Deployable:
    """The network of a ``model`` folder with the normalisation of its ``split``."""
    network, _ = load_model(model_dir)
    info = load_split(split_dir).info
    return Deployable(network, info["mean"], info["std"]).eval()


def example_images(split_dir: str | Path) -> np.ndarray:
    """Two test images as :class:`Deployable` takes them."""
    return load_split(split_dir).images["test"][:2].float().numpy()
