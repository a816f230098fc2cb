"""The networks that come with pfs."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Entry:
    """A network of the zoo, and the images and classes that it was published for.

    ``factory`` is ``module:function`` and is imported only when the network is built, since torchvision's networks are
    slow to import. The function is ``f(num_classes, in_channels, **kwargs) -> nn.Module``; the first line of its
    docstring describes the network.
    """

    factory: str
    input_shape: tuple[int, int, int]
    """Channels, height and width of one image."""
    num_classes: int

    def load(self) -> Callable[..., nn.Module]:
        """Import the factory and return it."""
        module, _, function = self.factory.partition(":")
        result: Callable[..., nn.Module] = getattr(importlib.import_module(module), function)
        return result


def _cifar(module: str, *names: str) -> dict[str, Entry]:
    return {name: Entry(f"pfs_core.models.{module}:{name}", (3, 32, 32), 10) for name in names}


def _imagenet(module: str, *names: str) -> dict[str, Entry]:
    return {name: Entry(f"pfs_core.models.{module}:{name}", (3, 224, 224), 1000) for name in names}


MODELS: dict[str, Entry] = {
    **_cifar("resnet", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    **_cifar("vgg", "vgg11", "vgg13", "vgg16", "vgg19"),
    **_imagenet("mobilenet_v1", "mobilenet_v1"),
    **_imagenet("mobilenet_v2", "mobilenet_v2"),
    **_imagenet("imagenet_resnet", "resnet18", "resnet34", "resnet50", "resnet101"),
}
