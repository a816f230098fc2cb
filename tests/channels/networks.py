"""Small networks for 2x8x8 images and 5 classes, each with its MACs and parameters counted by hand."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

INPUT = (2, 8, 8)


def chain(**modules):
    """An ``nn.Sequential`` with named modules."""
    return nn.Sequential(OrderedDict(modules))


def conv3(inputs, outputs, **options):
    """A 3x3 convolution that keeps the resolution, without bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options)


def head(channels):
    """Global pooling and a classifier."""
    return chain(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, 5))


def plain():
    return chain(
        conv1=conv3(2, 8), bn1=nn.BatchNorm2d(8), relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 6, 3, padding=1), bn2=nn.BatchNorm2d(6), relu2=nn.ReLU(),
        head=head(6),
    )  # fmt: skip


def separable():
    return chain(
        conv1=conv3(2, 8), bn1=nn.BatchNorm2d(8), relu1=nn.ReLU(),
        depthwise=conv3(8, 8, stride=2, groups=8), bn2=nn.BatchNorm2d(8), relu2=nn.ReLU(),
        pointwise=nn.Conv2d(8, 6, 1, bias=False), bn3=nn.BatchNorm2d(6), relu3=nn.ReLU(),
        head=head(6),
    )  # fmt: skip


def flattened():
    return chain(
        conv1=conv3(2, 4), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(), fc=nn.Linear(64, 5),
    )  # fmt: skip


def perceptron():
    return chain(
        flatten=nn.Flatten(), fc1=nn.Linear(128, 7), bn1=nn.BatchNorm1d(7), relu=nn.ReLU(), fc2=nn.Linear(7, 5)
    )


def grouped():
    return chain(
        conv1=conv3(2, 8), bn1=nn.BatchNorm2d(8), relu1=nn.ReLU(),
        conv2=conv3(8, 8, groups=2), bn2=nn.BatchNorm2d(8), relu2=nn.ReLU(),
        head=head(8),
    )  # fmt: skip


class Residual(nn.Module):
    """``x + block(x)`` after a stem."""

    def __init__(self):
        super().__init__()
        self.stem = chain(conv=conv3(2, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.block = chain(
            conv1=conv3(6, 7), bn1=nn.BatchNorm2d(7), relu=nn.ReLU(), conv2=conv3(7, 6), bn2=nn.BatchNorm2d(6)
        )
        self.relu = nn.ReLU()
        self.head = head(6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.relu(x + self.block(x)))


class PreActivation(nn.Module):
    """BatchNorm and ReLU before the convolutions: the stream itself has no BatchNorm."""

    def __init__(self):
        super().__init__()
        self.stem = conv3(2, 6)
        self.block = chain(
            bn1=nn.BatchNorm2d(6), relu1=nn.ReLU(), conv1=conv3(6, 7),
            bn2=nn.BatchNorm2d(7), relu2=nn.ReLU(), conv2=conv3(7, 6),
        )  # fmt: skip
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.head = head(6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.relu(self.bn(x + self.block(x))))


class Twice(nn.Module):
    """One convolution called twice."""

    def __init__(self):
        super().__init__()
        self.stem = chain(conv=conv3(2, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.shared = chain(conv=conv3(6, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.head = head(6)

    def forward(self, x):
        return self.head(self.shared(self.shared(self.stem(x))))


class Chunked(nn.Module):
    """Half of the channels go through a convolution, as in ShuffleNet."""

    def __init__(self):
        super().__init__()
        self.stem = chain(conv=conv3(2, 8), bn=nn.BatchNorm2d(8), relu=nn.ReLU())
        self.conv = conv3(4, 4)
        self.head = head(8)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, dim=1)
        return self.head(torch.cat([self.conv(a), b], dim=1))


@dataclass(frozen=True)
class Network:
    """A factory and its truth."""

    build: Callable[[], nn.Module]
    macs: int
    params: int


NETWORKS = {
    "plain": Network(plain, 64 * 9 * (2 * 8 + 8 * 6) + 30, (144 + 16) + (432 + 6 + 12) + 35),
    "separable": Network(
        separable, 64 * 9 * 2 * 8 + 16 * 9 * 8 + 16 * 8 * 6 + 30, (144 + 16) + (72 + 16) + (48 + 12) + 35
    ),
    "flattened": Network(flattened, 64 * 9 * 2 * 4 + 64 * 5, (72 + 8) + 325),
    "perceptron": Network(perceptron, 128 * 7 + 7 * 5, (896 + 7 + 14) + 40),
    "grouped": Network(grouped, 64 * 9 * (2 * 8 + 8 * 4) + 40, (144 + 16) + (288 + 16) + 45),
    "residual": Network(Residual, 64 * 9 * (2 * 6 + 6 * 7 + 7 * 6) + 30, (108 + 12) + (378 + 14) + (378 + 12) + 35),
    "pre-activation": Network(
        PreActivation, 64 * 9 * (2 * 6 + 6 * 7 + 7 * 6) + 30, 108 + (12 + 378) + (14 + 378) + 12 + 35
    ),
    "twice": Network(Twice, 64 * 9 * (2 * 6 + 2 * 6 * 6) + 30, (108 + 12) + (324 + 12) + 35),
    "chunked": Network(Chunked, 64 * 9 * (2 * 8 + 4 * 4) + 40, (144 + 16) + 144 + 45),
}
