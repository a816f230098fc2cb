"""Widths are checked before anything is computed from them."""

import re
from dataclasses import replace

import pytest

from pfs_core.channels import trace
from pfs_core.errors import UserError
from tests.channels import networks, zoo


def changed(**widths):
    return {**zoo.graph("resnet20").widths(), **{name.replace("_", "."): width for name, width in widths.items()}}


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({**changed(), "layer9": 4}, "unknown channel group 'layer9'; known: input, conv1, "),
        ({k: v for k, v in changed().items() if k != "conv1"}, "no width is given for channel group 'conv1'"),
        (changed(conv1=0), "width of channel group 'conv1' must be a positive number (got 0)"),
        (changed(conv1=-3), "width of channel group 'conv1' must be a positive number (got -3)"),
        (changed(conv1=8.5), "width of channel group 'conv1' must be a positive number (got 8.5)"),
        (changed(input=4), "channel group 'input' must keep width 3 (got 4): the network's input"),
        (changed(fc=11), "channel group 'fc' must keep width 10 (got 11): the network's output"),
    ],
)
def test_wrong_widths_are_refused(widths, message):
    for use in (zoo.graph("resnet20").check, zoo.graph("resnet20").cost):
        with pytest.raises(UserError, match=re.escape(message)):
            use(widths)


def test_right_widths_are_accepted():
    zoo.graph("resnet20").check(changed(conv1=1))


def test_groups_are_found_by_name():
    graph = zoo.graph("resnet20")
    assert graph.group("conv1").width == 16
    with pytest.raises(KeyError):
        graph.group("conv9")


def some(widths):
    return widths["input"], widths["conv1"], widths["layer3.0.conv1"], widths["fc"]


def test_expansion_widens_prunable_groups_and_the_stream_where_the_network_says_so():
    graph = zoo.graph("resnet20")
    assert graph.widen_stream
    assert some(graph.expanded(1.25)) == (3, 20, 80, 10)
    assert graph.expanded(1.0) == graph.widths()
    assert some(replace(graph, widen_stream=False).expanded(1.25)) == (3, 16, 80, 10)


def test_the_stream_is_widened_apart():
    for graph in (zoo.graph("resnet20"), zoo.graph("resnet20", "all")):
        assert some(graph.expanded(1.25, stream=1.0)) == (3, 16, 80, 10)
        assert some(graph.expanded(1.0, stream=1.5)) == (3, 24, 64, 10)


def test_the_stream_that_is_pruned_is_widened():
    graph = replace(zoo.graph("resnet20", "all"), widen_stream=False)
    assert some(graph.expanded(1.25)) == (3, 20, 80, 10)


def test_expanded_widths_are_rounded_to_the_nearest():
    assert zoo.graph("resnet20").expanded(1.04)["conv1"] == 17
    assert zoo.graph("resnet20").expanded(1.02)["conv1"] == 16


def test_expanded_widths_are_multiples_of_the_blocks():
    graph = trace(networks.grouped(), networks.INPUT)
    assert graph.group("conv1").blocks == 2
    assert graph.expanded(1.1)["conv1"] == 8
    assert graph.expanded(1.2)["conv1"] == 10
    with pytest.raises(UserError, match="'conv1' must be a multiple of 2"):
        graph.cost({**graph.widths(), "conv1": 7})
