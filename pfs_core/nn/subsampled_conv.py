"""1x1 convolutions with a stride, kept away from a fault of oneDNN.

The gradient of the weights of such a convolution, in channels_last with fewer input channels than a vector holds, is
computed in a workspace that is too small (oneDNN issue 6035; 3.13 has the fault on AVX2 and AVX-512): it writes over
other memory. A 1x1 convolution with a stride reads one pixel of each s x s; when those are picked first, what is left
is a convolution without a stride, which has no such workspace.
"""

from torch import Tensor, nn

VECTOR = 16
"""Channels up to which the workspace may be too small: those of an AVX-512 vector of float32."""


class SubsampledConv2d(nn.Conv2d):
    """A 1x1 convolution that picks its pixels before it multiplies."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)], as :class:`torch.nn.Conv2d` computes it."""
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


def subsample_first(model: nn.Module) -> nn.Module:
    """``model``, changed in place: narrow 1x1 convolutions with a stride pick their pixels first."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _strided_pointwise(module) and module.in_channels < VECTOR:
            module.__class__ = SubsampledConv2d
    return model


def _strided_pointwise(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding in ((0, 0), "valid")
    return plain and conv.kernel_size == (1, 1) and conv.stride != (1, 1)
