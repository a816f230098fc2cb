"""VGG with batch normalisation and a single linear layer, the CIFAR form of Simonyan and Zisserman (2015)."""

from torch import Tensor, nn

from pfs_core.models.initialise import init_convolutions

VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class VGG(nn.Module):
    """3x3 convolutions with BN and ReLU, halving the resolution at every ``"pool"``; images of 16x16 or more.

    Args:
        layers: output channels of each convolution, or ``"pool"``.
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
    """

    def __init__(self, layers: tuple[int | str, ...], num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = in_channels
        for width in layers:
            if isinstance(width, str):
                features.append(nn.MaxPool2d(2))
                continue
            features += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """BN scales start at 0.5 and the classifier at N(0, 0.01^2), as in the paper's released code."""
        init_convolutions(self, bn_scale=0.5)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [N, num_classes]."""
        return self.classifier(self.flatten(self.pool(self.features(x))))


def vgg16(num_classes: int = 10, in_channels: int = 3) -> VGG:
    """VGG16-BN for CIFAR: 13 convolutions and one linear layer."""
    return VGG(VGG16, num_classes, in_channels)
