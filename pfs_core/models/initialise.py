"""Random initialisation: of the networks that gates are searched on, and of those that are trained afterwards."""

import math

from torch import nn


def init_convolutions(model: nn.Module, bn_scale: float = 1.0) -> None:
    """Initialise convolutions and BatchNorms as the paper's released code does.

    Weights of convolutions are drawn from N(0, 2 / (k * k * C_out)) (He et al. 2015, fan-out) and their biases are 0.
    The scales of BatchNorms are ``bn_scale`` and their shifts 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, bn_scale)
            nn.init.zeros_(module.bias)


def init_linear(layer: nn.Linear) -> None:
    """Draw weights from N(0, 0.01^2) with a bias of 0, as the paper's released code does for VGG and the MobileNets."""
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
