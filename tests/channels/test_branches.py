"""Channels that are read twice or added: the strictest of their readers and producers decides."""

import pytest
from torch import nn

from pfs_core.channels import trace
from tests.channels.networks import INPUT, conv3, head


class Branches(nn.Module):
    """Two convolutions of the same image, then ``operation(self, a, b)``, which gives 6 channels."""

    def __init__(self, operation):
        super().__init__()
        self.conv_a, self.conv_b = conv3(2, 8), conv3(2, 8)
        self.bn_a, self.bn_b = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv1, self.conv2 = conv3(8, 6), conv3(8, 6)
        self.operation = operation
        self.head = head(6)

    def forward(self, x):
        return self.head(self.operation(self, self.conv_a(x), self.conv_b(x)))


@pytest.mark.parametrize(
    "operation",
    [
        lambda self, a, b: self.conv1(self.bn_a(a)) + self.conv2(a) + self.conv1(self.bn_b(b)),
        lambda self, a, b: self.conv1(a) + self.conv2(self.bn_a(a)) + self.conv2(self.bn_b(b)),
        lambda self, a, b: self.conv1(a) + self.conv2(self.bn_a(a) + self.bn_b(b)),
        lambda self, a, b: self.conv1(b) + self.conv2(self.bn_a(a) + self.bn_b(b)),
        lambda self, a, b: self.conv1(self.bn_a(a) + b),
    ],
    ids=["read later", "read before", "read, then added", "other one read, then added", "added as it is"],
)
def test_a_reader_without_batch_norm_is_gated_at_the_layer_that_writes(operation):
    group = trace(Branches(operation), INPUT, "all").group("conv_a")
    assert group.prunable
    assert any(gate.startswith("conv_") for gate in group.gates)
    assert any(gate.startswith("bn_") for gate in group.gates)


@pytest.mark.parametrize(
    "operation",
    [
        lambda self, a, b: self.conv1(self.bn_a(a)) + self.conv2(a.sigmoid()),
        lambda self, a, b: self.conv2(a.sigmoid()) + self.conv1(self.bn_a(a)),
        lambda self, a, b: self.conv1(self.bn_a(a) + b.sigmoid()),
        lambda self, a, b: self.conv1(self.bn_a(a) + 1),
    ],
    ids=["read later", "read before", "added", "a number added"],
)
def test_a_reader_of_moved_zeros_prevents_gating(operation):
    group = trace(Branches(operation), INPUT, "all").group("conv_a")
    assert not group.prunable
    assert group.resizable
    assert "cannot be gated" in group.reason


@pytest.mark.parametrize(
    "operation",
    [
        lambda self, a, b: self.conv1(self.bn_a(a) + self.bn_b(b)) + self.conv2(a.roll(1, 1)),
        lambda self, a, b: self.conv2(a.roll(1, 1)) + self.conv1(self.bn_a(a) + self.bn_b(b)),
        lambda self, a, b: self.conv2(b.roll(1, 1)) + self.conv1(self.bn_a(a) + self.bn_b(b)),
    ],
    ids=["frozen after the addition", "frozen before it", "other one frozen before it"],
)
def test_what_is_added_to_frozen_channels_is_frozen(operation):
    group = trace(Branches(operation), INPUT, "all").group("conv_a")
    assert not group.resizable
    assert "roll" in group.reason


def added_by_method(self, a, b):
    x = self.bn_a(a)
    x.add_(self.bn_b(b))
    return self.conv1(x)


def test_what_is_added_in_place_is_gated_as_well():
    group = trace(Branches(added_by_method), INPUT, "all").group("conv_a")
    assert set(group.gates) == {"bn_a", "bn_b"}
