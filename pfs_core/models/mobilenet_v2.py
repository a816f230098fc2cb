"""MobileNet-V2 of Sandler et al. (2018) in torchvision's form."""

from torch import nn
from torchvision.models import MobileNetV2 as Published

from pfs_core.models.arguments import check_width_mult
from pfs_core.models.initialise import init_convolutions, init_linear


class MobileNetV2(Published):
    """torchvision's MobileNet-V2, for any number of image channels; the keys of checkpoints are the same.

    Args:
        num_classes: outputs of the linear classifier.
        in_channels: channels of the images.
        width_mult: factor on every width, rounded to multiples of 8.
    """

    # The last convolutions of all blocks. In blocks that change the shape nothing is added to their outputs, but these
    # are a residual stream all the same.
    stream_layers = (r"features\.1\.conv\.1", r"features\.\d+\.conv\.2")

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0) -> None:
        check_width_mult(width_mult)
        super().__init__(num_classes, width_mult)
        stem = self.features[0]
        stem[0] = nn.Conv2d(in_channels, stem[0].out_channels, 3, stride=2, padding=1, bias=False)
        init_convolutions(stem)  # torchvision initialises in the same way

    def init_weights(self) -> None:
        """Initialise as the paper's released code does; the classifier is drawn from N(0, 0.01^2)."""
        init_convolutions(self)
        init_linear(self.classifier[1])


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0) -> MobileNetV2:
    """MobileNet-V2 for ImageNet: 17 inverted residual blocks."""
    return MobileNetV2(num_classes, in_channels, width_mult)
