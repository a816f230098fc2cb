"""What one layer has in common with another, or does in training only, stays consistent."""

import pytest
import torch
from torch import nn

from pfs_core.channels import resize, trace
from tests.channels.counting import counted
from tests.channels.networks import INPUT, conv3, head
from tests.channels.torchvision_models import build, small
from tests.channels.zoo import scaled


class Shared(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv3(2, 6), conv3(6, 6), conv3(6, 6)
        self.b.weight = self.a.weight
        self.last, self.head = conv3(6, 4), head(4)

    def forward(self, x):
        return self.head(self.last(self.b(self.a(self.stem(x)).relu()).relu()).relu())


def test_layers_that_share_a_parameter_keep_their_widths():
    model = Shared()
    graph = trace(model, INPUT)
    assert graph.cost().params == sum(p.numel() for p in model.parameters())
    assert not graph.group("stem").resizable
    assert "shares a parameter with another layer" in graph.group("stem").reason
    widths = scaled(graph, 2.0)
    resized = resize(model, graph, widths)
    assert resized.a.weight is resized.b.weight
    assert resized.last.weight.shape == (8, 6, 3, 3)
    assert graph.cost(widths).params == sum(p.numel() for p in resized.parameters())
    assert resized(torch.randn(2, *INPUT)).shape == (2, 5)


class Auxiliary(nn.Module):
    """A second head that only training uses."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv3(2, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv3(6, 4), nn.BatchNorm2d(4)
        self.aux, self.head = nn.Sequential(conv3(6, 3), nn.ReLU(), head(3)), head(4)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        out = self.head(self.bn2(self.conv2(x)).relu())
        return (out, self.aux(x)) if self.training else out


def test_a_head_that_only_training_uses_follows_what_it_reads():
    model = Auxiliary()
    graph = trace(model, INPUT)
    assert ("aux.0", "reads") in graph.members("conv1")
    assert graph.cost() == counted(Auxiliary(), INPUT)
    widths = scaled(graph, 1.5)
    resized = resize(model, graph, widths)
    assert graph.cost(widths) == counted(resize(model, graph, widths), INPUT)
    assert [out.shape for out in resized.train()(torch.randn(2, *INPUT))] == [(2, 5), (2, 5)]


@pytest.mark.slow
def test_auxiliary_heads_of_torchvision_run_in_training():
    from pfs_core.config.spec import ModelSpec
    from pfs_core.models import build_model

    spec = ModelSpec(name="torchvision:googlenet", input_shape=(3, 96, 96), kwargs={"aux_logits": True})
    model = build_model(spec)
    graph = trace(model, spec.input_shape)
    resized = resize(model, graph, scaled(graph, 0.5)).train()
    assert resized(torch.randn(2, *spec.input_shape)).aux_logits1.shape == (2, 10)


def test_tracing_says_where_control_flow_depends_on_data():
    from pfs_core.errors import UserError

    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv3(2, 4)

        def forward(self, x):
            x = self.conv(x)
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(
        UserError, match=r"what it does depends on their values \(test_sharing\.py, line \d+: if x\.sum\(\) > 0:\)"
    ):
        trace(Deciding(), INPUT)


def test_small_networks_of_torchvision_do_not_depend_on_the_image_size():
    widths = trace(build("mobilenet_v3_small"), small("mobilenet_v3_small")).widths()
    assert widths == trace(build("mobilenet_v3_small"), (3, 96, 128)).widths()
