"""CIFAR ResNets of He et al. (2016)."""

import torch.nn.functional as F
from torch import Tensor, nn

from pfs_core.errors import UserError
from pfs_core.models.arguments import check_width
from pfs_core.models.initialise import init_convolutions

SHORTCUTS = ("conv", "pad")
"""Kinds of shortcut where the shape changes: options B and A of the paper."""


class PadShortcut(nn.Module):
    """The shortcut of option A, without parameters: every second pixel, with channels of zeros on both sides."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.before = (channels - in_channels) // 2
        self.after = channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / 2, W / 2]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them, which is of the given kind where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: str = "conv") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 and shortcut == "pad":
            self.shortcut = PadShortcut(in_channels, channels)
        elif stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        out = self.relu(self.bn1(self.conv1(x)))
        value: Tensor = self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))
        return value


class CifarResNet(nn.Module):
    """A stem and three stages of basic blocks at ``width``, ``2 * width`` and ``4 * width`` channels.

    Args:
        depth: 6n + 2 for n blocks per stage.
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width: channels of the first stage.
        shortcut: ``conv`` (1x1 convolution and BN, option B) or ``pad`` (subsampling and zeros, option A).
    """

    widen_stream = True  # the paper's released code expands these networks as a whole

    def __init__(
        self, depth: int, num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv"
    ) -> None:
        super().__init__()
        check_width(width)
        if shortcut not in SHORTCUTS:
            raise UserError(f"model.shortcut must be conv or pad (got {shortcut!r})")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, blocks, 1, shortcut)
        self.layer2 = _stage(width, 2 * width, blocks, 2, shortcut)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise convolutions as the paper's released code does, and the classifier as PyTorch does."""
        init_convolutions(self)
        self.fc.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return out


def _stage(in_channels: int, channels: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    rest = [BasicBlock(channels, channels) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, channels, stride, shortcut), *rest)


def resnet20(num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv") -> CifarResNet:
    """ResNet-20 for CIFAR: 9 basic blocks, 16-32-64 channels."""
    return CifarResNet(20, num_classes, in_channels, width, shortcut)


def resnet32(num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv") -> CifarResNet:
    """ResNet-32 for CIFAR: 15 basic blocks, 16-32-64 channels."""
    return CifarResNet(32, num_classes, in_channels, width, shortcut)


def resnet44(num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv") -> CifarResNet:
    """ResNet-44 for CIFAR: 21 basic blocks, 16-32-64 channels."""
    return CifarResNet(44, num_classes, in_channels, width, shortcut)


def resnet56(num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv") -> CifarResNet:
    """ResNet-56 for CIFAR: 27 basic blocks, 16-32-64 channels."""
    return CifarResNet(56, num_classes, in_channels, width, shortcut)


def resnet110(num_classes: int = 10, in_channels: int = 3, width: int = 16, shortcut: str = "conv") -> CifarResNet:
    """ResNet-110 for CIFAR: 54 basic blocks, 16-32-64 channels."""
    return CifarResNet(110, num_classes, in_channels, width, shortcut)
