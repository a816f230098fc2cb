"""CIFAR ResNets of He et al. (2016), with the 1x1-convolution shortcut (option B)."""

from torch import Tensor, nn

from pfs_core.errors import UserError
from pfs_core.models.initialise import init_convolutions


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A stem and three stages of basic blocks at ``width``, ``2 * width`` and ``4 * width`` channels.

    Args:
        depth: 6n + 2 for n blocks a stage.
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width: channels of the first stage.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise UserError(f"model.width must be a whole number from 1 (got {width!r})")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions as in the paper's released code; the classifier keeps PyTorch's own initialisation."""
        init_convolutions(self)
        self.fc.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.avgpool(x)))


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(channels, channels) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)


def resnet20(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> CifarResNet:
    """ResNet-20 for CIFAR: 9 basic blocks, 16-32-64 channels."""
    return CifarResNet(20, num_classes, in_channels, width)


def resnet56(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> CifarResNet:
    """ResNet-56 for CIFAR: 27 basic blocks, 16-32-64 channels."""
    return CifarResNet(56, num_classes, in_channels, width)
