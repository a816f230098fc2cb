"""Networks that are hard to prove are accepted; those that cannot be copied or trained are refused in one line."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pfs_core.channels import resize, trace
from pfs_core.errors import UserError
from tests.channels.masking import proved
from tests.channels.networks import INPUT, conv3, head
from tests.channels.unusual import Unusual


class NeedsValues(nn.Module):
    """A tensor that is no buffer, and a BatchNorm that counts its batches."""

    def __init__(self):
        super().__init__()
        self.mean = torch.full((1, 8, 1, 1), 0.5)
        self.norm = nn.BatchNorm2d(8, momentum=None)

    def forward(self, x):
        return self.norm(x) - self.mean.mean()


def test_a_network_whose_values_are_needed_is_proved_with_them():
    model = Unusual(lambda self, x: self.other(x), other=NeedsValues())
    graph = trace(model, INPUT)
    assert graph.group("conv1").prunable
    assert proved(model, graph) == graph


def test_a_network_that_returns_zeros_with_few_channels_is_proved():
    model = nn.Sequential(conv3(2, 8), nn.ReLU(), conv3(8, 6), nn.ReLU(), head(6))
    nn.init.zeros_(model[-1].fc.bias)
    model[-1].fc.bias.requires_grad_(False)
    model.append(nn.ReLU())
    graph = trace(model, INPUT)
    with torch.no_grad():
        model[2].weight.neg_().clamp_(max=-0.1)
    assert proved(model, graph) == graph


def test_several_outputs_keep_their_widths():
    class Several(Unusual):
        def forward(self, x):
            x = self.conv1(x)
            return {"features": x, "classes": (self.head(self.conv2(x)),)}

    graph = trace(Several(None), INPUT)
    assert "output" in graph.group("conv1").reason
    assert graph.group("conv2").prunable


def test_a_network_that_cannot_learn_is_refused():
    class Frozen(Unusual):
        forward = torch.no_grad()(Unusual.forward)

    model = Frozen(lambda self, x: x)
    with pytest.raises(UserError, match="^Frozen cannot be trained: what it returns has no gradient$"):
        proved(model, trace(model, INPUT))


def a_function(model):
    model.again = lambda x: model.extra(x).relu()


def its_forward(model):
    model.forward = torch.no_grad()(model.forward)


@pytest.mark.parametrize("hold", [a_function, its_forward])
def test_a_function_that_holds_the_network_is_refused(hold):
    """A copy of the network would call the layers of the first one, which are neither resized nor trained."""
    model = Unusual(lambda self, x: self.again(x), extra=conv3(8, 8))
    model.again = model.extra.forward
    hold(model)
    with pytest.raises(UserError, match=r"weight is read by a function or an attribute that holds the network's own"):
        trace(model, INPUT)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LazyConv2d(8, 3, padding=1),
        lambda: torch.nn.utils.weight_norm(conv3(8, 8)),
        lambda: prune.random_unstructured(conv3(8, 8), "weight", 0.5),
    ],
    ids=["lazy", "weight norm by a hook", "masked weights"],
)
def test_a_model_that_cannot_be_copied_is_refused_in_one_line(layer):
    with pytest.raises(UserError, match="Unusual cannot be copied") as error:
        trace(Unusual(lambda self, x: self.layer(x), layer=layer()), INPUT)
    assert "\n" not in str(error.value)
    assert "copy.py" not in str(error.value)
    assert any(right in str(error.value) for right in ("a first batch of images", "prune.remove"))


class Halves(NamedTuple):
    """Sizes of a split."""

    left: int
    right: int


class Typed(nn.Module):
    """Begins with a parameter that is no float, and splits by a named tuple."""

    def __init__(self, first):
        super().__init__()
        self.first, self.sizes = first, Halves(4, 4)
        self.conv, self.left, self.right, self.head = conv3(2, 8), conv3(4, 6), conv3(4, 6), head(6)

    def forward(self, x):
        left, right = torch.split(self.conv(x), self.sizes, 1)
        return self.head(self.left(left) + self.right(right) * self.first.real.sum())


@pytest.mark.parametrize("dtype", [torch.cfloat, torch.int64])
def test_images_are_as_precise_as_the_weights_that_are_numbers_with_a_point(dtype):
    model = Typed(nn.Parameter(torch.ones(1, dtype=dtype), requires_grad=False))
    graph = trace(model, INPUT, "all")
    assert proved(model, graph) == graph
    assert graph.group("conv").prunable
    assert resize(model, graph, {**graph.widths(), "conv": 4}).sizes._fields == ("left", "right")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused_in_one_line():
    right = "is a TorchScript module, whose operators are not seen; give the nn.Module that it was made from"
    scripted = torch.jit.script(conv3(8, 8))
    with pytest.raises(UserError, match=f"^Unusual cannot be copied: its layer layer {right}$"):
        trace(Unusual(lambda self, x: self.layer(x), layer=scripted), INPUT)
    traced = torch.jit.trace(conv3(2, 8), torch.zeros(1, *INPUT))
    with pytest.raises(UserError, match=f" cannot be copied: it {right}$"):
        trace(traced, INPUT)
