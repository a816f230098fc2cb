"""Convolutions with frozen weights on maps of a few pixels, where torch's kernels on the CPU are slow.

The search never changes a weight, so whatever depends on the weights alone is computed once. Two cases gain by that
(``python benchmarks/layout.py`` measures them; with both, a search step of VGG16 at 1.25x with all channels takes
253 ms in place of 359, on two threads of an AMD EPYC):

- On a map with at most half as many pixels as the kernel has taps, nearly every pixel is mixed with every other one.
  The convolution is then a matrix product over whole maps, with fewer multiplications than it spends on its padding.
- On somewhat larger maps with many channels, oneDNN's kernels for channels_last read all weights again for every few
  pixels. Those for NCHW do not. For frozen weights the gradient of the input is such a convolution too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfs_core.nn.replacing import conv_with_weights_of, with_replaced

SMALL_MAP = 16
"""Largest number of pixels of a map that is not left to torch."""
MANY_WEIGHTS = 900_000
"""Number of weights from which a convolution is computed in NCHW: in bf16, more than the caches of a core hold."""
BLOCK = 64
"""Channels are padded to a multiple of this in NCHW, where oneDNN's kernels are only fast on whole blocks."""


def freeze_convolutions(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose convolutions choose how to compute by the size of the map.

    These are the convolutions larger than 1x1 that keep the size of a map by padding with zeros and have neither a bias
    nor groups. Parameters and buffers are shared with ``model``, and the names in the ``state_dict`` are the same.

    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1, bias=False))
    >>> [type(conv).__name__ for conv in freeze_convolutions(model)]
    ['FrozenConv2d', 'Conv2d']
    """
    return with_replaced(model, _freezing)


def _freezing(module: nn.Module) -> nn.Module | None:
    """Return what replaces a module, if anything."""
    if type(module) is nn.Conv2d and _keeps_size(module) and module.bias is None and module.groups == 1:
        return conv_with_weights_of(module, FrozenConv2d)
    return None


class FrozenConv2d(nn.Conv2d):
    """A Conv2d whose weights get no gradient; once it was called they may neither change nor be converted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cache: dict[Any, Any] = {}  # of tensors that follow from the weights; not part of the state

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', H, W], like :class:`torch.nn.Conv2d`."""
        height, width = input.shape[2:]
        taps = self.kernel_size[0] * self.kernel_size[1]
        if input.device.type != "cpu" or height * width > SMALL_MAP or self.weight.requires_grad:
            return super().forward(input)
        if 2 * height * width <= taps:
            pixels = input.permute(0, 2, 3, 1).flatten(1)
            matrix = self._cached((height, width), partial(self._matrix, height, width))
            product = pixels.to(self.weight.dtype) @ matrix
            out: Tensor = product.view(-1, height, width, self.out_channels).permute(0, 3, 1, 2)
            return out
        if self.weight.numel() >= MANY_WEIGHTS:
            weights = self._cached("weights", self._in_nchw)
            convolved: Tensor = _InNchw.apply(input.to(self.weight.dtype), *weights, self.out_channels, self.padding)
            return convolved
        return super().forward(input)

    def _cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returned when it was first called for ``key``: the weights have not changed since."""
        if key not in self._cache:
            # Evaluation may be first, in inference mode; a tensor made there could not be used in training.
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = make()
        return self._cache[key]

    def _in_nchw(self) -> tuple[Tensor, Tensor]:
        """Return the weights, and those of the convolution that gives the gradient of the input; in whole blocks."""
        more_in, more_out = -self.in_channels % BLOCK, -self.out_channels % BLOCK
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        return weight.contiguous(), weight.flip(2, 3).transpose(0, 1).contiguous()

    def _matrix(self, height: int, width: int) -> Tensor:
        """Return [H * W * C, H * W * C']: the weight between every two pixels, 0 where the kernel does not reach."""
        taps = F.pad(self.weight, (width, width, height, height)).permute(2, 3, 1, 0)
        up, across = torch.arange(height), torch.arange(width)
        # [row of the input, row of the output]: the tap of the padded kernel between them; columns follow.
        rows = up[:, None] - up + self.kernel_size[0] // 2 + height
        columns = across[:, None] - across + self.kernel_size[1] // 2 + width
        between = taps[rows[:, None, :, None], columns[None, :, None, :]]  # [H, W, H, W, C, C']
        return between.permute(0, 1, 4, 2, 3, 5).reshape(height * width * self.in_channels, -1)


class _InNchw(torch.autograd.Function):
    """A convolution of a channels_last tensor, computed in NCHW; the result is in channels_last again.

    The gradient of the input is the convolution of the output's gradient with the flipped weights; the weights
    themselves are frozen and get none.
    """

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
    """Return the first ``channels`` channels of a convolution; x may have fewer channels than the padded weights."""
    if missing := weight.shape[1] - x.shape[1]:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    out = F.conv2d(x.contiguous(), weight, None, 1, padding)
    return out[:, :channels].contiguous(memory_format=torch.channels_last)


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Return whether a convolution larger than 1x1 gives maps of the size that it is given."""
    odd = all(size % 2 == 1 for size in conv.kernel_size) and conv.kernel_size != (1, 1)
    padding = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.padding_mode == "zeros" and conv.stride == conv.dilation == (1, 1)
    return odd and plain and conv.padding == padding
