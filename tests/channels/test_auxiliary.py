"""Heads that only training uses follow the widths that they read."""

import pytest
import torch
from torch import nn

from pfs_core.channels import resize, slice_weights, trace
from tests.channels.counting import counted
from tests.channels.networks import INPUT, chain, conv3, head


class Auxiliary(nn.Module):
    """A second classifier on the stem, in training mode; ``tie`` adds its features to those of the trunk there."""

    def __init__(self, tie=False):
        super().__init__()
        self.stem = chain(conv=conv3(2, 8), bn=nn.BatchNorm2d(8), relu=nn.ReLU())
        self.trunk = chain(conv=conv3(8, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.aux = chain(conv=conv3(8, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.aux_head, self.head = head(6), head(6)
        self.tie = tie

    def forward(self, x):
        x = self.stem(x)
        main = self.trunk(x)
        if not self.training:
            return self.head(main)
        aux = self.aux(x) + main if self.tie else self.aux(x)
        return self.head(main), self.aux_head(aux)


def test_a_head_for_training_is_on_the_axes_of_what_it_reads():
    graph = trace(Auxiliary(), INPUT)
    assert ("aux.conv", "reads") in graph.members("stem.conv")
    assert graph.group("aux.conv").prunable


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("tie", [False, True])
def test_a_resized_network_trains_and_is_evaluated(tie, policy):
    model = Auxiliary(tie)
    graph = trace(model, INPUT, policy)
    widths = {**graph.expanded(0.5), "stem.conv": 3}
    resized = resize(model, graph, widths)
    assert [tuple(out.shape) for out in resized.train()(torch.randn(2, *INPUT))] == [(2, 5), (2, 5)]
    assert graph.cost(widths) == counted(resized, INPUT)


def test_what_training_ties_is_tied():
    graph = trace(Auxiliary(tie=True), INPUT, "all")
    assert {module for module, role in graph.members("trunk.conv") if role == "writes"} == {"trunk.conv", "aux.conv"}


def test_a_head_for_training_costs_parameters_and_no_macs():
    graph = trace(Auxiliary(), INPUT)
    widths = graph.widths()
    wider = graph.cost({**widths, "aux.conv": 7})
    assert wider.macs == graph.cost().macs
    assert wider.params - graph.cost().params == 9 * 8 + 2 + 5


def test_slicing_cuts_the_heads_for_training_too():
    model = Auxiliary()
    pruned = slice_weights(model, trace(model, INPUT), {"stem.conv": torch.tensor([1, 5])})
    assert torch.equal(pruned.aux.conv.weight, model.aux.conv.weight[:, [1, 5]])


def test_the_mode_of_the_network_does_not_matter():
    model = Auxiliary()
    assert trace(model.train(), INPUT) == trace(model.eval(), INPUT)


class Mixed(nn.Module):
    """Mixes the channels of images in training; ``spare`` is called in no mode."""

    def __init__(self, **spare):
        super().__init__()
        self.stem, self.head = chain(conv=conv3(2, 8), bn=nn.BatchNorm2d(8)), head(8)
        for name, layer in spare.items():
            setattr(self, name, layer)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.roll(x, 1, 1) if self.training else x)


def test_what_training_does_alone_ties_nothing_for_a_layer_that_nothing_calls():
    assert trace(Mixed(), INPUT).group("stem.conv").prunable
    assert trace(Mixed(spare=conv3(2, 8)), INPUT).group("stem.conv").prunable
