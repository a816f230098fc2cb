"""The random initialisation on which gates are searched and from which networks are retrained."""

import math

from torch import nn


def init_convolutions(model: nn.Module, bn_scale: float = 1.0) -> None:
    """Convolutions ~ N(0, 2 / (k*k*C_out)), BN scale constant and shift 0, as the paper's released code does."""
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
    """Weights ~ N(0, 0.01^2) and no bias, as the paper's released code does for VGG and the MobileNets."""
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
