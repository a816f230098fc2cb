"""Which channels belong together, which may be pruned and what gates them."""

import pytest
from torch import nn

from pfs_core.channels import Axis, ChannelSlice, trace
from pfs_core.channels.elements import AxisTensor, features
from tests.channels import networks, zoo
from tests.channels.networks import INPUT

BLOCKS = {"resnet20": 3, "resnet56": 9}


def prunable(graph):
    return {group.name: group.gates for group in graph.prunable()}


def test_vgg_prunes_all_13_convolutions():
    convs = [i for i, m in enumerate(zoo.network("vgg16").features) if isinstance(m, nn.Conv2d)]
    assert len(convs) == 13
    assert prunable(zoo.graph("vgg16")) == {f"features.{i}": (f"features.{i + 1}",) for i in convs}
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [g.width for g in zoo.graph("vgg16").prunable()] == widths


@pytest.mark.parametrize("name", BLOCKS)
def test_resnet_prunes_the_first_convolution_of_each_block(name):
    blocks = [f"layer{stage}.{i}" for stage in (1, 2, 3) for i in range(BLOCKS[name])]
    assert prunable(zoo.graph(name)) == {f"{block}.conv1": (f"{block}.bn1",) for block in blocks}


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_stream_is_left_alone_by_the_inner_policy(name):
    streams = ["conv1", "layer2.0.conv2", "layer3.0.conv2"]
    groups = [zoo.graph(name).group(stream) for stream in streams]
    assert [group.width for group in groups] == [16, 32, 64]
    for group in groups:
        assert not group.prunable
        assert group.resizable
        assert "residual stream" in group.reason


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_stream_is_pruned_by_the_policy_all(name):
    inner, every = prunable(zoo.graph(name)), prunable(zoo.graph(name, "all"))
    assert {*every} - {*inner} == {"conv1", "layer2.0.conv2", "layer3.0.conv2"}
    blocks = range(BLOCKS[name])
    assert set(every["conv1"]) == {"bn1", *(f"layer1.{i}.bn2" for i in blocks)}
    assert set(every["layer2.0.conv2"]) == {"layer2.0.shortcut.1", *(f"layer2.{i}.bn2" for i in blocks)}


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_input_and_classes_keep_their_width(name, policy):
    groups = zoo.graph(name, policy).groups
    assert [g.name for g in groups if not g.resizable] == ["input", groups[-1].name]
    assert "input" in groups[0].reason
    assert "output" in groups[-1].reason


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_layer_is_a_member_of_the_groups_of_its_shape(name, policy):
    graph, model = zoo.graph(name, policy), zoo.network(name)
    widths = graph.widths()
    found = {(axis.module, axis.role): features(axis.segments, widths) for axis in graph.axes}
    expected = {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected |= {(layer, "reads"): module.in_channels, (layer, "writes"): module.out_channels}
        elif isinstance(module, nn.Linear):
            expected |= {(layer, "reads"): module.in_features, (layer, "writes"): module.out_features}
        elif isinstance(module, nn.BatchNorm2d):
            expected |= {(layer, "norm"): module.num_features}
    assert found == expected


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_group_is_prunable_or_says_why_not(name):
    for policy in ("inner", "all"):
        for group in zoo.graph(name, policy).groups:
            assert group.prunable == (not group.reason)
            assert group.prunable == bool(group.gates)


def test_addition_ties_its_producers():
    graph = trace(networks.Residual(), INPUT)
    writers = [module for module, role in graph.members("stem.conv") if role == "writes"]
    assert writers == ["stem.conv", "block.conv2"]
    assert list(prunable(graph)) == ["block.conv1"]
    assert prunable(trace(networks.Residual(), INPUT, "all"))["stem.conv"] == ("block.bn2", "stem.bn")


def test_depthwise_pair_is_gated_behind_the_depthwise_convolution():
    assert prunable(trace(networks.separable(), INPUT)) == {"conv1": ("bn2",), "pointwise": ("bn3",)}


def test_pre_activation_stream_is_gated_where_it_is_read():
    gates = prunable(trace(networks.PreActivation(), INPUT, "all"))
    assert {name: set(norms) for name, norms in gates.items()} == {
        "stem": {"block.bn1", "bn"},
        "block.conv1": {"block.bn2"},
    }


def test_a_module_called_twice_ties_its_input_to_its_output():
    graph = trace(networks.Twice(), INPUT)
    assert prunable(graph) == {"stem.conv": ("shared.bn", "stem.bn")}
    assert {("shared.conv", "reads"), ("shared.conv", "writes")} <= {*graph.members("stem.conv")}


def test_flattened_channels_repeat():
    axes = trace(networks.flattened(), INPUT).axes
    assert Axis("fc", "reads", (ChannelSlice("conv1", 16),), (AxisTensor("fc.weight", 1),)) in axes
