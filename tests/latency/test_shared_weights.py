"""Layers under two names and layers with one weight are written and read like any other network."""

import pytest
import torch
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.latency.networks import read_network, write_network
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.references import dense


class Net(nn.Module):
    """Three convolutions, of which two are one (``twice``) or have one weight (``tied``)."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(width, 8, 3, padding=1) for width in (1, 8, 8))
        if kind == "twice":
            self.third = self.second
        else:
            self.third.weight = self.second.weight
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.third(self.second(self.first(x).relu()).relu()).relu().mean((2, 3)))


def twice():
    return Net("twice")


def tied():
    return Net("tied")


@pytest.mark.parametrize("factory", ["twice", "tied"])
def test_a_network_that_shares_weights_is_the_same_when_it_is_read(factory, tmp_path):
    spec = ModelSpec(name=f"tests.latency.test_shared_weights:{factory}", input_shape=(1, 8, 8))
    write_network(dense(unexpanded_graph(spec), model=spec), tmp_path / "network", seed=0)
    model = read_network(tmp_path / "network")
    assert model.third.weight.data_ptr() == model.second.weight.data_ptr()
    torch.manual_seed(0)
    assert torch.equal(model.first.weight, read_network.__wrapped__(tmp_path / "network").first.weight)
    assert model(torch.randn(2, 1, 8, 8)).isfinite().all()
