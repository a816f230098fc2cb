"""Resizing gives the same network at other widths, freshly initialised."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pfs_core.channels import resize, slice_weights, trace
from pfs_core.errors import UserError
from pfs_core.models import build_model
from tests.channels import networks, zoo
from tests.channels.networks import INPUT, NETWORKS

SMALL = (3, 16, 16)


def trained(model):
    """``model`` with weights and statistics that no initialisation gives."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(7.0)
    return model


@pytest.mark.parametrize("name", zoo.ZOO)
def test_names_and_order_stay(name):
    model, graph = zoo.network(name), zoo.graph(name)
    resized = resize(model, graph, graph.expanded(1.25))
    assert list(resized.state_dict()) == list(model.state_dict())
    assert [n for n, _ in resized.named_modules()] == [n for n, _ in model.named_modules()]
    assert [type(m) for m in resized.modules()] == [type(m) for m in model.modules()]


@settings(max_examples=3)
@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", zoo.ZOO)
@given(data=st.data())
def test_trace_of_resized_has_the_widths(name, policy, data):
    graph = zoo.graph(name, policy)
    widths = data.draw(zoo.widths_of(graph))
    resized = trace(resize(zoo.network(name), graph, widths), zoo.INPUT, policy)
    assert resized.widths() == widths
    assert resized.cost() == graph.cost(widths)
    assert [group.name for group in resized.prunable()] == [group.name for group in graph.prunable()]


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"chunked"}))
def test_resized_networks_run(name):
    model = NETWORKS[name].build()
    graph = trace(model, INPUT)
    widths = zoo.scaled(graph, 2.0)
    resized = resize(model, graph, widths)
    assert resized(torch.randn(3, *INPUT)).shape == (3, 5)
    assert trace(resized, INPUT).widths() == widths


def test_depthwise_convolutions_follow_their_group():
    model = networks.separable()
    graph = trace(model, INPUT)
    depthwise = resize(model, graph, {**graph.widths(), "conv1": 3}).depthwise
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (3, 3, 3)
    assert depthwise.weight.shape == (3, 1, 3, 3)


def test_linear_after_flatten_follows_its_channels():
    model = networks.flattened()
    graph = trace(model, INPUT)
    assert resize(model, graph, {**graph.widths(), "conv1": 3}).fc.in_features == 3 * 16


def test_weights_are_fresh():
    torch.manual_seed(0)
    model = trained(build_model("resnet20"))
    graph = trace(model, SMALL)
    resized = resize(model, graph, graph.widths())
    for name, tensor in resized.state_dict().items():
        if tensor.is_floating_point():
            assert not (tensor == 7.0).any(), name
    assert all((m.running_mean == 0).all() for m in resized.modules() if isinstance(m, nn.BatchNorm2d))


def test_initialisation_is_the_networks_own():
    torch.manual_seed(0)
    vgg = build_model("vgg16", input_shape=SMALL)
    graph = trace(vgg, SMALL)
    resized = resize(vgg, graph, graph.expanded(1.25))
    norms = [m for m in resized.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 0.5).all() and (norm.bias == 0).all() for norm in norms)
    assert resized.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    conv = resized.features[3]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.05)


def test_same_seed_same_weights():
    model = build_model("resnet20")
    graph = trace(model, SMALL)

    def weights(seed):
        torch.manual_seed(seed)
        return resize(model, graph, graph.expanded(1.25)).state_dict()

    first, second, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_model_stays_as_it_was():
    model = trained(build_model("resnet20"))
    graph = trace(model, SMALL)
    resize(model, graph, graph.expanded(1.25))
    assert all((t == 7.0).all() for t in model.state_dict().values() if t.is_floating_point())
    assert trace(model, SMALL).widths() == graph.widths()


def test_frozen_parameters_stay_frozen():
    model = build_model("resnet20").requires_grad_(False)
    graph = trace(model, SMALL)
    resized = resize(model, graph, graph.expanded(1.25))
    assert not any(p.requires_grad for p in resized.parameters())


def test_slicing_keeps_the_named_channels():
    model = networks.separable()
    graph = trace(model, INPUT)
    pruned = slice_weights(model, graph, {"conv1": torch.tensor([1, 6])})
    assert torch.equal(pruned.conv1.weight, model.conv1.weight[[1, 6]])
    assert torch.equal(pruned.bn2.weight, model.bn2.weight[[1, 6]])
    assert torch.equal(pruned.depthwise.weight, model.depthwise.weight[[1, 6]])
    assert torch.equal(pruned.pointwise.weight, model.pointwise.weight[:, [1, 6]])


def test_slicing_after_flatten_keeps_every_pixel_of_a_channel():
    model = networks.flattened()
    graph = trace(model, INPUT)
    pruned = slice_weights(model, graph, {"conv1": torch.tensor([1, 3])})
    assert torch.equal(pruned.fc.weight, model.fc.weight[:, [*range(16, 32), *range(48, 64)]])


@pytest.mark.parametrize("kept", [{"nothing": torch.tensor([0])}, {"conv1": torch.tensor([], dtype=torch.int64)}])
def test_slicing_refuses_what_cannot_be(kept):
    model = networks.separable()
    with pytest.raises(UserError):
        slice_weights(model, trace(model, INPUT), kept)
