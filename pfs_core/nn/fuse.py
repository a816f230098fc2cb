"""BatchNorm folded into the convolution before it, as a network is deployed."""

import warnings

from torch import nn


def folded(model: nn.Module) -> nn.Module:
    """A copy of ``model``, in evaluation mode, without the BatchNorms that directly follow a convolution.

    It computes the same up to rounding. A network that torch.fx cannot trace comes back as it is.
    """
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return fuse(model.eval())
    except TraceError:
        return model.eval()
