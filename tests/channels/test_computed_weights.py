"""What a network computes from its weights is resized and masked with them, or their channels stay as they are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import trace
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, conv3
from tests.channels.unusual import Unusual, check_costs

KERNELS = {
    "mirrored": lambda weight: weight.flip(-1),
    "turned": lambda weight: torch.rot90(weight, 1, (2, 3)),
    "its middle": lambda weight: F.pad(weight[:, :, 1:2, 1:2], (1, 1, 1, 1)),
    "quantised": lambda weight: weight + ((8 * weight).round() / 8 - weight).detach(),
    "sparse": lambda weight: torch.where(weight.abs() > 0.05, weight, 0.0),
    "masked": lambda weight: weight.masked_fill(weight < 0, 0),
    "resized": lambda weight: F.interpolate(weight, size=(3, 3), mode="bilinear"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_channels_of_a_kernel_are_followed_through_what_is_made_of_its_pixels(name):
    torch.manual_seed(0)
    model = Unusual(
        lambda self, x: self.other(F.conv2d(x, KERNELS[name](self.layer.weight), padding=1)),
        layer=conv3(8, 8),
        other=conv3(8, 8),
    )
    graph = trace(model, INPUT)
    assert graph.group("conv1").prunable
    assert graph.group("layer").resizable
    assert proved(model, graph) == graph
    check_costs(model, graph)


PARAMETERS = {
    "decoder": lambda self, x: F.conv_transpose2d(F.relu(self.encoder(x)), self.encoder.weight, padding=1),
    "dilated": lambda self, x: self.layer(x) + F.conv2d(x, self.layer.weight, padding=2, dilation=2),
    "norm of the weight": lambda self, x: self.layer(x) / self.layer.weight.norm(),
    "demodulated": lambda self, x: (
        self.layer(x) * torch.rsqrt((self.layer.weight**2).sum((1, 2, 3)) + 1e-8).view(1, -1, 1, 1)
    ),
    "a scale of another branch": lambda self, x: self.norm(self.layer(x)) + x * self.norm.weight.view(1, -1, 1, 1),
    "orthogonality": lambda self, x: (
        self.layer(x) + 0 * (self.layer.weight.flatten(1) @ self.layer.weight.flatten(1).t()).sum()
    ),
}


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_read_outside_its_layer_is_never_silently_wrong(name, policy):
    layer, encoder = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 4, 3, padding=1)
    model = Unusual(PARAMETERS[name], layer=layer, encoder=encoder, norm=nn.BatchNorm2d(8))
    graph = proved(model, trace(model, INPUT, policy))
    assert graph.group("conv2").prunable
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


def test_a_parameter_on_the_channels_of_two_readers_is_resized_once():
    torch.manual_seed(0)
    model = Unusual(PARAMETERS["demodulated"], layer=conv3(8, 8))
    graph = trace(model, INPUT)
    assert graph.group("layer").prunable
    assert proved(model, graph) == graph
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


@pytest.mark.parametrize("gain", [True, False])
def test_of_a_weight_that_is_normalised_the_outputs_are_prunable(gain):
    class Standardised(nn.Conv2d):
        def forward(self, x):
            rows = self.weight.reshape(1, self.out_channels, -1)
            gains = self.gain * 0.5 if gain else None
            weight = F.batch_norm(rows, None, None, weight=gains, training=True, momentum=0.0)
            return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=1)

    layer = Standardised(8, 8, 3)
    layer.gain = nn.Parameter(torch.rand(8) + 0.5)
    normed = torch.nn.utils.parametrizations.weight_norm(conv3(8, 8))
    for standardised in (layer, normed):
        model = Unusual(lambda self, x: self.other(self.layer(x)), layer=standardised, other=conv3(8, 8))
        graph = trace(model, INPUT)
        assert "computed with all of its inputs" in graph.group("conv1").reason
        assert graph.group("layer").prunable
        assert proved(model, graph) == graph
        check_costs(model, graph)


def test_the_same_holds_for_a_linear_layer():
    torch.manual_seed(0)
    for bias in (True, False):
        normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8, bias=bias))
        model = Unusual(
            lambda self, x: self.other(self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
            layer=normed,
            other=conv3(8, 8),
        )
        graph = trace(model, INPUT)
        assert "computed with all of its inputs" in graph.group("conv1").reason
        assert graph.group("layer").prunable
        assert proved(model, graph) == graph
        check_costs(model, graph)
        for outputs in both_ways(model, graph, random_kept(graph), INPUT):
            assert outputs.error() < EXACT
            assert outputs.effect() > CHANGED


def test_a_spectral_norm_depends_on_all_of_a_weight():
    model = Unusual(lambda self, x: self.layer(x), layer=torch.nn.utils.parametrizations.spectral_norm(conv3(8, 8)))
    graph = trace(model, INPUT)
    assert not graph.group("conv1").resizable
    assert "parametrizations.weight.original is read outside its layer" in graph.group("conv1").reason
    check_costs(model, graph)


class Scaled(nn.Module):
    """A gain and an offset of each channel, viewed by numbers that it has as attributes."""

    def __init__(self):
        super().__init__()
        self.width, self.shape = 8, (8, 1, 1)
        self.gain, self.offset = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(16))

    def forward(self, x):
        gained = x * self.gain.view(self.shape)
        offset = self.offset.view(1, self.width * 2, 1, 1)
        return F.relu(torch.cat([gained, gained], 1) * offset)


def test_the_numbers_that_weights_are_viewed_with_go_with_their_widths():
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.scaled(x), 16, scaled=Scaled())
    graph = trace(model, INPUT)
    assert graph.group("conv1").prunable
    assert proved(model, graph) == graph
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
