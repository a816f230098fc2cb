"""Layers that somebody wrote or changed, and operators outside any layer, are taken for what they compute."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import trace
from tests.channels.masking import EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, chain, conv3
from tests.channels.unusual import Unusual, check_costs


class Computed(nn.BatchNorm2d):
    """A BatchNorm whose scale, or shift, is not its parameter itself."""

    def __init__(self, scale, shift):
        super().__init__(8)
        self.scale, self.shift = scale, shift

    def forward(self, x):
        scale, shift = self.scale(self.weight), self.shift(self.bias)
        return F.batch_norm(x, self.running_mean, self.running_var, scale, shift, self.training)


class Positive(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, weight):
        return F.softplus(weight)


def parametrized():
    layer = nn.BatchNorm2d(8)
    nn.utils.parametrize.register_parametrization(layer, "weight", Positive())
    return layer


OF_ONES_OWN = {
    "a scale of 1 + weight": lambda: Computed(lambda w: 1 + w, lambda b: b),
    "a shift of 1 + bias": lambda: Computed(lambda w: w, lambda b: b + 1),
    "a sigmoid of the weight": lambda: Computed(torch.sigmoid, lambda b: b),
    "a parametrized scale": parametrized,
}


@pytest.mark.parametrize("name", OF_ONES_OWN)
def test_a_batch_norm_that_computes_its_scale_is_gated_at_its_output(name):
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.norm(self.conv(x)), conv=conv3(8, 8), norm=OF_ONES_OWN[name]())
    graph = trace(model, INPUT)
    assert graph.group("conv").gates == ("norm",)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


class Pooled(nn.Module):
    """A generalised mean; its exponent is called as the rate of a dropout is."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), 2).pow(1 / self.p)


def test_a_number_that_is_called_like_a_rate_of_dropout_stays_as_it_is():
    model = Unusual(lambda self, x: self.pooled(x), pooled=Pooled(3.0))
    graph = trace(model, INPUT)
    assert graph.group("conv1").gates == ("pooled",)
    assert proved(model, graph) == graph


def test_a_hook_on_a_block_is_part_of_the_network():
    model = Unusual(lambda self, x: self.block(x), block=chain(conv=conv3(8, 8)))
    model.block.register_forward_hook(lambda module, inputs, output: output + 1)
    group = trace(model, INPUT).group("block.conv")
    assert group.gates == ("block",)
    check_costs(model, proved(model, trace(model, INPUT)))


def test_operators_of_the_network_itself_are_layers_of_their_own():
    """Two normalisations without weights are not one layer, although no module holds either."""
    normal = functools.partial(F.batch_norm, running_mean=None, running_var=None, training=True)
    model = Unusual(
        lambda self, x: self.one(normal(self.few(x))) + self.other(normal(self.many(x))),
        few=conv3(8, 4), many=conv3(8, 5), one=conv3(4, 8), other=conv3(5, 8),
    )  # fmt: skip
    graph = trace(model, INPUT)
    for name in ("few", "many"):
        assert graph.group(name).resizable
        assert "cannot be gated: <batch_norm" in graph.group(name).reason
    assert "" not in [axis.module for axis in graph.axes]


def test_layers_that_are_called_like_a_second_call_are_layers_all_the_same():
    """PyTorch numbers the calls of a layer by an @."""
    torch.manual_seed(0)
    layers = nn.ModuleDict({"conv@3x3": conv3(8, 8), "bn@1": nn.BatchNorm2d(8)})
    model = Unusual(lambda self, x: self.layers["bn@1"](self.layers["conv@3x3"](x)), layers=layers)
    graph = proved(model, trace(model, INPUT))
    assert graph.group("layers.conv@3x3").gates == ("layers.bn@1",)
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
