"""BatchNorm fused into the convolution before it, as a network is deployed."""

import warnings

from torch import nn


def fuse_batchnorm(model: nn.Module) -> nn.Module:
    """Return a copy of ``model``, in evaluation mode, without the BatchNorms that directly follow a convolution.

    In evaluation a BatchNorm is a factor and a shift per channel, which the weights and the bias of the convolution
    take over; the result computes the same up to rounding. ``model`` itself is put into evaluation mode too, and is
    what is returned where torch.fx cannot trace it.

    >>> fused = fuse_batchnorm(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()))
    >>> [type(module).__name__ for module in fused.children()]
    ['Conv2d', 'ReLU']
    """
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return fuse(model.eval())
    except TraceError:
        return model.eval()
