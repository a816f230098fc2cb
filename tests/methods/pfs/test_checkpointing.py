"""Networks that checkpoint their activations: backward runs parts of them again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pfs_core.channels import trace
from pfs_core.errors import UserError
from pfs_core.methods.pfs.network import GatedNetwork

SHAPE = (3, 12, 12)


class Checkpointed(nn.Module):
    """A stem, a body that is checkpointed where ``settings`` say how, and a classifier."""

    def __init__(self, settings=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            *(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        )
        self.fc, self.settings = nn.Linear(8, 5), settings

    def forward(self, x):
        x = self.stem(x)
        x = self.body(x) if self.settings is None else checkpoint(self.body, x, **self.settings)
        return self.fc(x.mean((2, 3)))


def gradient(settings):
    """The gradient of the gates after a step from random gates, some of them closed."""
    torch.manual_seed(0)
    model = Checkpointed(settings)
    network = GatedNetwork(model, trace(model, SHAPE), "fp32", 0.01)
    gates = torch.rand(len(network.gates.values))
    gates[[1, 9, 10, 17]] = 0.0
    network.gates.copy_(gates)
    images = torch.randn(6, *SHAPE).contiguous(memory_format=network.layout)
    network.step(F.cross_entropy(network(images), torch.arange(6) % 5))
    assert all(isinstance(parameter, nn.Parameter) for parameter in network.module.parameters())
    return network.gates.values.grad


def test_gradients_are_those_without_it():
    assert torch.equal(gradient({"use_reentrant": False}), gradient(None))


def test_the_kind_that_has_none_is_refused():
    with pytest.raises(UserError, match="gradients of the gates cannot be computed: .*use_reentrant=False"):
        gradient({"use_reentrant": True})
