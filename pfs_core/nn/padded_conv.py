"""Convolutions whose stride is larger than their map, computed in a way that avoids a fault of oneDNN.

oneDNN leaves parts of the gradient of the weights of such a convolution unset in bf16, where the map is padded: a
ResNet for large images has them on small ones, such as a 3x3 convolution with a stride of 2 on a single pixel. Seen in
version 3.13 on a CPU with AVX-512 and bf16. Where the map is padded before, no parts are left out.
"""

from torch import Tensor, nn

from pfs_core.nn.replacing import conv_with_weights_of, with_replaced


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads a map first where its stride is larger than that."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [N, C, H, W] like :class:`torch.nn.Conv2d`."""
        if all(stride <= size for stride, size in zip(self.stride, input.shape[-2:], strict=True)):
            return super().forward(input)
        rows, columns = (int(width) for width in self.padding)
        padded = nn.functional.pad(input, (columns, columns, rows, rows))
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_first(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose padded convolutions with a stride pad maps that are smaller than the stride.

    Parameters and buffers are shared with ``model``, and the names in the ``state_dict`` are the same.

    >>> model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    >>> [type(conv).__name__ for conv in pad_first(model)]
    ['PaddedConv2d', 'Conv2d']
    """
    return with_replaced(model, _padding)


def _padding(module: nn.Module) -> nn.Module | None:
    """Return what replaces a module, if anything."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    if module.stride == (1, 1) or module.padding == (0, 0):
        return None
    return conv_with_weights_of(module, PaddedConv2d)
