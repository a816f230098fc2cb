"""The trained network as users call it: pixels in, logits out."""

import numpy as np
import torch
from torch import Tensor, nn

from pfs_core.report.results import Results
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


def deployable(results: Results) -> Deployable:
    """The trained pruned network of a run with the normalisation of its split."""
    network, _ = load_model(results.model_dir)
    return Deployable(network, results.split["mean"], results.split["std"]).eval()


def example_images(results: Results) -> np.ndarray:
    """Two images of noise as :class:`Deployable` takes them."""
    shape = (2, *results.spec.input_shape)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
