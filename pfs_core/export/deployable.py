"""The trained network in the form that users call: it takes pixels and returns logits."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import check_onnx, write_onnx


class Deployable(nn.Module):
    """A network that contains its normalisation.

    It maps pixels, float32 [N, C, H, W] in 0-255, to logits, float32 [N, classes].

    Args:
        network: takes normalised images.
        mean: the mean of each image channel, of pixels in 0-255.
        std: the standard deviation of each image channel, of pixels in 0-255.

    >>> model = Deployable(nn.Flatten(), mean=[100.0], std=[50.0])
    >>> model(torch.full((1, 1, 1, 2), 200.0))
    tensor([[2., 2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of a batch of pixels."""
        out: Tensor = self.network((images - self.mean) / self.std)
        return out


def deployable(network: nn.Module, split: SplitInfo) -> Deployable:
    """Return a copy of a trained network, on the CPU in evaluation mode, with the normalisation of its split."""
    return Deployable(copy.deepcopy(network).cpu(), split.mean, split.std).eval()


def example_images(input_shape: tuple[int, int, int]) -> np.ndarray:
    """Return two images of noise, float32 [2, C, H, W], as :class:`Deployable` takes them."""
    return np.random.default_rng(0).integers(0, 256, (2, *input_shape)).astype(np.float32)


def try_onnx(network: nn.Module, split: SplitInfo, path: Path) -> str:
    """Write the deployable network to ``path`` as ONNX if possible.

    Returns:
        The reason why it is not possible; an empty string if the file was written.
    """
    model = deployable(network, split)
    try:
        write_onnx(model, split.input_shape, path)
        check_onnx(path, model, split.input_shape)
    except UserError as e:
        path.unlink(missing_ok=True)
        return str(e)
    return ""
