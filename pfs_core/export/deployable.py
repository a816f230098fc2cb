"""The trained network as users call it: pixels in, logits out."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import check_onnx, write_onnx


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


def deployable(network: nn.Module, split: SplitInfo) -> Deployable:
    """A copy of a trained network, on the CPU in evaluation mode, with the normalisation of its split."""
    return Deployable(copy.deepcopy(network).cpu(), split.mean, split.std).eval()


def example_images(input_shape: tuple[int, int, int]) -> np.ndarray:
    """Two images of noise as :class:`Deployable` takes them."""
    return np.random.default_rng(0).integers(0, 256, (2, *input_shape)).astype(np.float32)


def try_onnx(network: nn.Module, split: SplitInfo, path: Path) -> str:
    """Write the deployable network to ``path`` as ONNX, if it can be; returns why not, or an empty string."""
    model = deployable(network, split)
    try:
        write_onnx(model, split.input_shape, path)
        check_onnx(path, model, split.input_shape)
    except UserError as e:
        path.unlink(missing_ok=True)
        return str(e)
    return ""
