"""1x1 convolutions with a stride, computed in a way that avoids a fault of oneDNN.

oneDNN computes the gradient of the weights of such a convolution, in channels_last with fewer input channels than a
vector holds, in a workspace that is too small, and so writes over other memory (oneDNN issue 6035; version 3.13 has the
fault on AVX2 and AVX-512). A 1x1 convolution with a stride reads one pixel of each s x s block. When these pixels are
picked first, what remains is a 1x1 convolution without a stride, which needs no such workspace.
"""

from torch import Tensor, nn

from pfs_core.nn.replacing import conv_with_weights_of, with_replaced

VECTOR = 16
"""Convolutions with fewer input channels are affected: an AVX-512 vector holds 16 numbers in float32."""


class SubsampledConv2d(nn.Conv2d):
    """A 1x1 convolution that picks its pixels before it multiplies."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)], like :class:`torch.nn.Conv2d`."""
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


def subsample_first(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose narrow 1x1 convolutions with a stride pick their pixels first.

    Parameters and buffers are shared with ``model``, and the names in the ``state_dict`` are the same.

    >>> model = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 3))
    >>> [type(conv).__name__ for conv in subsample_first(model)]
    ['SubsampledConv2d', 'Conv2d']
    """
    return with_replaced(model, _subsampling)


def _subsampling(module: nn.Module) -> nn.Module | None:
    """Return what replaces a module, if anything."""
    if type(module) is nn.Conv2d and _strided_pointwise(module) and module.in_channels < VECTOR:
        return conv_with_weights_of(module, SubsampledConv2d)
    return None


def _strided_pointwise(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding in ((0, 0), "valid")
    return plain and conv.kernel_size == (1, 1) and conv.stride != (1, 1)
