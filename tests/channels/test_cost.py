"""The closed form against published sizes, hand counts and PyTorch's own counter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pfs_core.channels import Cost, resize, trace
from pfs_core.config.spec import ModelSpec
from pfs_core.models import build_model, published_fields
from tests.channels import networks, zoo
from tests.channels.counting import counted
from tests.channels.networks import NETWORKS


@pytest.mark.parametrize(
    ("name", "kwargs", "macs", "params"),
    [
        ("resnet20", {"shortcut": "pad"}, 40_551_040, 269_722),
        ("resnet20", {"shortcut": "conv"}, 40_813_184, 272_474),
        ("resnet56", {"shortcut": "pad"}, 125_485_696, 853_018),
        ("resnet56", {"shortcut": "conv"}, 125_747_840, 855_770),
        ("vgg16", {}, 313_201_664, 14_724_042),
        ("mobilenet_v1", {}, 568_740_352, 4_231_976),
        ("mobilenet_v2", {}, 300_774_272, 3_504_872),
        ("resnet50", {}, 4_089_184_256, 25_557_032),
    ],
)
def test_published_sizes(name, kwargs, macs, params):
    assert published(name, **kwargs).cost() == Cost(macs, params)


@pytest.mark.parametrize(
    ("name", "millions_of_params", "millions_of_macs", "pixels", "last"),
    [
        ("resnet20", 0.425, 63.6, 64, "layer3.0.conv2"),
        ("resnet56", 1.336, 196.4, 64, "layer3.0.conv2"),
        ("vgg16", 23.00, 488.8, 4, "features.40"),
        ("resnet50", 34.27, 5570, 49, "layer4.0.conv3"),
        ("mobilenet_v1", 6.271, 879.6, 49, "blocks.12.conv2"),
        ("mobilenet_v2", 4.380, 376.1, 49, "features.18.0"),
    ],
)
def test_published_expanded_sizes(name, millions_of_params, millions_of_macs, pixels, last):
    """The released code's figures at 1.25x; its counter adds the inputs of the average pool."""
    graph = published(name)
    widths = graph.expanded(1.25)
    cost = graph.cost(widths)
    assert cost.params / 1e6 == pytest.approx(millions_of_params, rel=1e-3)
    assert (cost.macs + widths[last] * pixels) / 1e6 == pytest.approx(millions_of_macs, rel=1e-3)


def published(name, **kwargs):
    """The graph of a network of the zoo for the images it was published for."""
    spec = ModelSpec(name=name, kwargs=kwargs, **published_fields(name))
    return trace(build_model(spec), spec.input_shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_hand_counted(name):
    truth = NETWORKS[name]
    assert trace(truth.build(), networks.INPUT).cost() == Cost(truth.macs, truth.params)


@pytest.mark.parametrize("name", NETWORKS)
def test_hand_counts_equal_flop_counter(name):
    truth = NETWORKS[name]
    assert counted(truth.build(), networks.INPUT) == Cost(truth.macs, truth.params)


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("factor", [1.0, 1.25])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_closed_form_equals_flop_counter(name, factor, policy):
    graph = zoo.graph(name, policy)
    widths = graph.expanded(factor)
    assert graph.cost(widths) == counted(resize(zoo.network(name), graph, widths), zoo.INPUT)


@settings(max_examples=8)
@pytest.mark.parametrize("name", zoo.ZOO)
@given(data=st.data())
def test_closed_form_equals_flop_counter_at_any_widths(name, data):
    graph = zoo.graph(name)
    widths = data.draw(zoo.widths_of(graph))
    assert graph.cost(widths) == counted(resize(zoo.network(name), graph, widths), zoo.INPUT)


@settings(max_examples=8)
@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(data=st.data())
def test_closed_form_equals_flop_counter_on_small_networks(name, data):
    model = NETWORKS[name].build()
    graph = trace(model, networks.INPUT)
    widths = data.draw(zoo.widths_of(graph))
    assert graph.cost(widths) == counted(resize(model, graph, widths), networks.INPUT)


def test_cost_of_no_widths_is_cost_as_traced():
    graph = zoo.graph("resnet20")
    assert graph.cost() == graph.cost(graph.widths())


def test_a_module_called_twice_counts_macs_twice_and_params_once():
    """With one more call of the shared convolution only the MACs rise."""
    twice = networks.Twice()
    thrice = networks.Twice()
    thrice.head = networks.chain(shared=thrice.shared, head=thrice.head)
    before, after = trace(twice, networks.INPUT).cost(), trace(thrice, networks.INPUT).cost()
    assert after.macs - before.macs == 64 * 9 * 6 * 6
    assert after.params == before.params


class Own(torch.nn.Conv2d):
    """A convolution of a class of its own."""


class Functional(torch.nn.Conv2d):
    """A convolution that is called as a function."""

    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.weight, self.bias, padding=self.padding)


@pytest.mark.parametrize(
    "layer",
    [Own(8, 8, 3, padding=1), torch.nn.ConvTranspose2d(8, 8, 2, stride=2), networks.chain(conv=Functional(8, 8, 1))],
    ids=["subclass", "transposed", "functional"],
)
def test_layers_that_are_not_understood_are_counted_all_the_same(layer):
    model = networks.chain(conv=networks.conv3(2, 8), layer=layer, head=networks.head(8))
    assert trace(model, networks.INPUT).cost() == counted(model, networks.INPUT)


class Attention(nn.Module):
    """Attention between the pixels of a convolution's output."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_attention_is_counted_on_real_weights_as_on_none():
    """In evaluation PyTorch has a fused kernel for it, which its counter does not know."""
    pixels, width = 36, 8
    macs = pixels * 3 * 9 * width + 4 * pixels * width**2 + 2 * pixels**2 * width + width * 5
    assert trace(Attention().eval(), (3, 6, 6)).cost().macs == macs
    assert trace(Attention().to("meta"), (3, 6, 6)).cost().macs == macs
