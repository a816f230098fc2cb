"""ImageNet ResNets of He et al. (2016) in torchvision's form: a bottleneck's stride is at its 3x3 convolution."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pfs_core.models.arguments import check_width
from pfs_core.models.initialise import init_convolutions


class ImageNetResNet(ResNet):
    """torchvision's ResNet, for any width and any number of image channels; the keys of checkpoints are the same.

    Args:
        block: torchvision's ``BasicBlock`` or ``Bottleneck``.
        layers: blocks in each of the four stages.
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width: channels of the stem. The stages have 1, 2, 4 and 8 times as many, and bottlenecks output 4 times that.
    """

    # The stem. With bottlenecks nothing is added to its output, since the first shortcut is a convolution.
    stream_layers = ("conv1",)

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
    ) -> None:
        nn.Module.__init__(self)  # not ResNet's, which would build a network with a stem of 64 channels
        check_width(width)
        self._norm_layer, self.groups, self.base_width, self.dilation = nn.BatchNorm2d, 1, 64, 1
        self.inplanes = width
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise convolutions as the paper's released code does, and the classifier as PyTorch does."""
        init_convolutions(self)
        self.fc.reset_parameters()


def resnet18(num_classes: int = 1000, in_channels: int = 3, width: int = 64) -> ImageNetResNet:
    """ResNet-18 for ImageNet: 8 basic blocks."""
    return ImageNetResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, width)


def resnet34(num_classes: int = 1000, in_channels: int = 3, width: int = 64) -> ImageNetResNet:
    """ResNet-34 for ImageNet: 16 basic blocks."""
    return ImageNetResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, width)


def resnet50(num_classes: int = 1000, in_channels: int = 3, width: int = 64) -> ImageNetResNet:
    """ResNet-50 for ImageNet: 16 bottleneck blocks."""
    return ImageNetResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, width)


def resnet101(num_classes: int = 1000, in_channels: int = 3, width: int = 64) -> ImageNetResNet:
    """ResNet-101 for ImageNet: 33 bottleneck blocks."""
    return ImageNetResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, width)
