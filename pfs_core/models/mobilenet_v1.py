"""MobileNet-V1 of Howard et al. (2017)."""

from torch import Tensor, nn

from pfs_core.models.arguments import check_width_mult
from pfs_core.models.initialise import init_convolutions, init_linear

STEM = 32
"""Channels of the first convolution at ``width_mult`` 1."""
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of each block at ``width_mult`` 1."""


class SeparableBlock(nn.Module):
    """A 3x3 depthwise convolution and a 1x1 convolution, each followed by BatchNorm and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(x)))
        return out


class MobileNetV1(nn.Module):
    """A stem and 13 depthwise-separable blocks.

    Args:
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width_mult: factor on every width; none falls below 8 channels.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0) -> None:
        super().__init__()
        check_width_mult(width_mult)
        channels = max(8, int(STEM * width_mult))
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        blocks = []
        for published, stride in BLOCKS:
            width = max(8, int(published * width_mult))
            blocks.append(SeparableBlock(channels, width, stride))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the paper's released code does; the classifier is drawn from N(0, 0.01^2)."""
        init_convolutions(self)
        init_linear(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return out


def mobilenet_v1(num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0) -> MobileNetV1:
    """MobileNet-V1 for ImageNet: 13 depthwise-separable blocks."""
    return MobileNetV1(num_classes, in_channels, width_mult)
