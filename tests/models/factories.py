"""A user's module of networks, as source."""

FACTORIES = """
from torch import nn

WIDTH = 4


class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3, width=WIDTH):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.bn(self.conv(x)).relu())))


def build(num_classes, in_channels, width=WIDTH, stages=()):
    assert all(type(stage) is int for stage in stages)
    return Net(num_classes, in_channels, width)


def anything(**kwargs):
    return Net(**kwargs)


def rgb(num_classes):
    return Net(num_classes)


def shaped(num_classes, in_channels):
    return Net(num_classes, in_channels)


shaped.input_shape = (1, 8, 8)


def needs_depth(num_classes, depth):
    return Net(num_classes)


def fails(num_classes):
    raise KeyError("layers")


def fails_at_length(num_classes):
    raise RuntimeError("first line\\nsecond line")


def numbers(num_classes):
    return [num_classes]
"""
