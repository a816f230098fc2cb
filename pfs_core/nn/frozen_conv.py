"""Convolutions whose weights stay as they are, on maps of a few pixels, where torch's kernels on the CPU are slow.

On a map with at most half as many pixels as the kernel has taps, nearly every pixel is mixed with every other: that is
a matrix product, with fewer multiplications than the convolution does on its padding. On somewhat larger maps with many
channels oneDNN's kernels for channels_last read all weights again for every few pixels; those for NCHW do not, and the
gradient of the input is, for frozen weights, such a convolution too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 16
"""Pixels."""
MANY_WEIGHTS = 900_000
"""What no longer fits into the caches of a core, in bf16."""
BLOCK = 64
"""Channels of which a multiple is quick in NCHW."""


def freeze_convolutions(model: nn.Module) -> nn.Module:
    """``model``, changed in place: convolutions choose how to compute.

    Those that keep the size of a map by zeros, have neither bias nor groups, and are larger than 1x1.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _keeps_size(module) and module.bias is None and module.groups == 1:
            module.__class__ = FrozenConv2d
    return model


class FrozenConv2d(nn.Conv2d):
    """A Conv2d whose weights may neither change nor be converted once it has been called, and get no gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H, W], as :class:`torch.nn.Conv2d` computes it."""
        height, width = input.shape[2:]
        taps = self.kernel_size[0] * self.kernel_size[1]
        if input.device.type != "cpu" or height * width > SMALL_MAP or self.weight.requires_grad:
            return super().forward(input)
        if 2 * height * width <= taps:
            pixels = input.permute(0, 2, 3, 1).flatten(1)
            matrix = self._kept((height, width), partial(self._matrix, height, width))
            product = pixels.to(self.weight.dtype) @ matrix
            return product.view(-1, height, width, self.out_channels).permute(0, 3, 1, 2)
        if self.weight.numel() >= MANY_WEIGHTS:
            weights = self._kept("weights", self._in_nchw)
            return _InNchw.apply(input.to(self.weight.dtype), *weights, self.out_channels, self.padding)
        return super().forward(input)

    def _kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gave the first time: the weights stay as they are."""
        known = self.__dict__.setdefault("_known", {})
        if key not in known:
            with torch.inference_mode(False), torch.no_grad():
                known[key] = make()
        return known[key]

    def _in_nchw(self) -> tuple[Tensor, Tensor]:
        """The weights, and those of the convolution that gives the gradient of the input; in whole blocks."""
        missing = [-channels % BLOCK for channels in (self.in_channels, self.out_channels)]
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, missing[0], 0, missing[1]))
        return weight.contiguous(), weight.flip(2, 3).transpose(0, 1).contiguous()

    def _matrix(self, height: int, width: int) -> Tensor:
        """[H * W * C, H * W * C']: the weight between every two pixels, 0 where the kernel does not reach."""
        taps = F.pad(self.weight, (width, width, height, height)).permute(2, 3, 1, 0)
        up, across = torch.arange(height), torch.arange(width)
        rows = up[:, None] - up + self.kernel_size[0] // 2 + height  # [of the input, of the output]: the tap between
        columns = across[:, None] - across + self.kernel_size[1] // 2 + width
        between = taps[rows[:, None, :, None], columns[None, :, None, :]]  # [H, W, H, W, C, C']
        return between.permute(0, 1, 4, 2, 3, 5).reshape(height * width * self.in_channels, -1)


class _InNchw(torch.autograd.Function):
    """(x, weight, flipped weight, channels, padding) to x's convolution; both channels_last, computed in NCHW."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, flipped: Tensor, channels: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(flipped)
        ctx.channels, ctx.padding = x.shape[1], padding
        return _convolved(x, weight, channels, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (flipped,) = ctx.saved_tensors
        return _convolved(grads[0].to(flipped.dtype), flipped, ctx.channels, ctx.padding), None, None, None, None


def _convolved(x: Tensor, weight: Tensor, channels: int, padding: tuple[int, int]) -> Tensor:
    """The first ``channels`` channels of the result; x has fewer than the weights, where these are padded."""
    if missing := weight.shape[1] - x.shape[1]:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    out = F.conv2d(x.contiguous(), weight, None, 1, padding)
    return out[:, :channels].contiguous(memory_format=torch.channels_last)


def _keeps_size(conv: nn.Conv2d) -> bool:
    odd = all(size % 2 == 1 for size in conv.kernel_size) and conv.kernel_size != (1, 1)
    padding = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.padding_mode == "zeros" and conv.stride == conv.dilation == (1, 1)
    return odd and plain and conv.padding == padding
