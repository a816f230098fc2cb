"""VGG of Simonyan and Zisserman (2015) in its form for CIFAR: with BatchNorm and a single linear layer."""

from torch import Tensor, nn

from pfs_core.models.arguments import check_width
from pfs_core.models.initialise import init_convolutions, init_linear


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with BatchNorm and ReLU, which halve the resolution between them.

    Images must have at least 16x16 pixels.

    Args:
        convolutions: the number of convolutions in each stage.
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
    """

    def __init__(
        self, convolutions: tuple[int, int, int, int, int], num_classes: int = 10, in_channels: int = 3, width: int = 64
    ) -> None:
        super().__init__()
        check_width(width)
        features: list[nn.Module] = []
        channels = in_channels
        for stage, count in zip((width, 2 * width, 4 * width, 8 * width, 8 * width), convolutions, strict=True):
            if features:
                features.append(nn.MaxPool2d(2))
            for _ in range(count):
                features += [
                    nn.Conv2d(channels, stage, 3, padding=1, bias=False),
                    nn.BatchNorm2d(stage),
                    nn.ReLU(inplace=True),
                ]
                channels = stage
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the paper's released code does: BatchNorm scales at 0.5, the classifier from N(0, 0.01^2)."""
        init_convolutions(self, bn_scale=0.5)
        init_linear(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        out: Tensor = self.classifier(self.flatten(self.pool(self.features(x))))
        return out


def vgg11(num_classes: int = 10, in_channels: int = 3, width: int = 64) -> VGG:
    """VGG11-BN for CIFAR: 8 convolutions and one linear layer."""
    return VGG((1, 1, 2, 2, 2), num_classes, in_channels, width)


def vgg13(num_classes: int = 10, in_channels: int = 3, width: int = 64) -> VGG:
    """VGG13-BN for CIFAR: 10 convolutions and one linear layer."""
    return VGG((2, 2, 2, 2, 2), num_classes, in_channels, width)


def vgg16(num_classes: int = 10, in_channels: int = 3, width: int = 64) -> VGG:
    """VGG16-BN for CIFAR: 13 convolutions and one linear layer."""
    return VGG((2, 2, 3, 3, 3), num_classes, in_channels, width)


def vgg19(num_classes: int = 10, in_channels: int = 3, width: int = 64) -> VGG:
    """VGG19-BN for CIFAR: 16 convolutions and one linear layer."""
    return VGG((2, 2, 4, 4, 4), num_classes, in_channels, width)
