"""Convolutions whose weights stay as they are, on maps of a few pixels, where torch's kernels on the CPU are slow.

A kernel that reaches all of a map from each of its pixels mixes everything with everything: that is a matrix product,
with fewer multiplications than the convolution does on its padding. On somewhat larger maps with many channels oneDNN's
kernels for channels_last read all weights again for every few pixels; those for NCHW do not, and the gradient of the
input is, for frozen weights, such a convolution too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 16
"""Pixels."""
MANY_WEIGHTS = 1_500_000
"""What no longer fits into the caches of a core, in bf16."""


def freeze_convolutions(model: nn.Module) -> nn.Module:
    """``model``, changed in place: convolutions of stride 1 that keep the size of a map choose how to compute."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _keeps_size(module) and module.bias is None and module.groups == 1:
            module.__class__ = FrozenConv2d
    return model


class FrozenConv2d(nn.Conv2d):
    """A Conv2d whose weights may not change once it has been called, nor get a gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H, W], as :class:`torch.nn.Conv2d` computes it."""
        height, width = input.shape[2:]
        taps = self.kernel_size[0] * self.kernel_size[1]
        if input.device.type != "cpu" or height * width > SMALL_MAP:
            return super().forward(input)
        if 2 * height * width <= taps:
            pixels = input.permute(0, 2, 3, 1).flatten(1)
            product = pixels.to(self.weight.dtype) @ self._matrix(height, width)
            return product.view(-1, height, width, self.out_channels).permute(0, 3, 1, 2)
        if self.weight.numel() >= MANY_WEIGHTS:
            return _InNchw.apply(input.to(self.weight.dtype), self.weight, self.padding)
        return super().forward(input)

    def _matrix(self, height: int, width: int) -> Tensor:
        """[H * W * C, H * W * C']: what the convolution makes of each unit vector."""
        known = self.__dict__.setdefault("_matrices", {})
        if (height, width) not in known:
            rows = torch.eye(height * width * self.in_channels, dtype=self.weight.dtype)
            images = rows.view(-1, height, width, self.in_channels).permute(0, 3, 1, 2)
            with torch.no_grad():
                out = F.conv2d(images, self.weight, None, 1, self.padding)
            known[height, width] = out.permute(0, 2, 3, 1).flatten(1)
        return known[height, width]


class _InNchw(torch.autograd.Function):
    """(x, weight, padding) to their convolution; both channels_last, and computed in NCHW."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.padding = padding
        return _convolved(x, weight, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _convolved(grads[0], weight.flip(2, 3).transpose(0, 1), ctx.padding), None, None


def _convolved(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    out = F.conv2d(x.contiguous(), weight.contiguous(), None, 1, padding)
    return out.contiguous(memory_format=torch.channels_last)


def _keeps_size(conv: nn.Conv2d) -> bool:
    odd = all(size % 2 == 1 for size in conv.kernel_size)
    padding = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.padding_mode == "zeros" and conv.stride == conv.dilation == (1, 1)
    return odd and plain and conv.padding == padding
