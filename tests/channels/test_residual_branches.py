"""Residual branches that a network can do without: which they are, what the rest costs, and what it computes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.channels import Cost, refuted_groups, resize, slice_weights, trace
from pfs_core.channels.export import count_macs
from pfs_core.channels.proof import calibrated, silenced
from pfs_core.errors import UserError
from pfs_core.models import build_model
from tests.channels.masking import EXACT, difference, noise
from tests.channels.networks import INPUT, chain, conv3, head

NETWORKS = {
    "resnet20": ((3, 32, 32), 7),
    "resnet56": ((3, 32, 32), 25),
    "mobilenet_v2": ((3, 32, 32), 10),
    "vgg16": ((3, 32, 32), 0),
    "torchvision:resnet18": ((3, 64, 64), 5),
    "torchvision:mobilenet_v3_small": ((3, 64, 64), 6),
    "torchvision:densenet121": ((3, 64, 64), 0),
}


def without(graph, names):
    """The traced widths with these branches left out."""
    gone = [group for branch in graph.branches if branch.name in names for group in branch.groups]
    return graph.widths() | dict.fromkeys(gone, 0)


def costs(model, input_shape):
    macs = count_macs(model, torch.empty(1, *input_shape))
    return Cost(macs, sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_blocks_that_keep_their_shape_can_be_left_out(name):
    shape, count = NETWORKS[name]
    model = build_model(name)
    graph = trace(model, shape)
    assert len(graph.branches) == count
    assert refuted_groups(model, graph).needed == {}
    widths = without(graph, [branch.name for branch in graph.branches])
    assert costs(resize(model, graph, widths).eval(), shape) == graph.cost(widths)


SMALL = (3, 8, 8)
RESNET = build_model("resnet20")
GRAPH = trace(RESNET, SMALL)
BRANCHES = [branch.name for branch in GRAPH.branches]


@given(st.sets(st.sampled_from(BRANCHES)), st.integers(1, 16))
def test_the_rest_costs_what_the_closed_form_says_and_keeps_its_weights(names, width):
    widths = {**GRAPH.widths(), "layer2.0.conv1": width}
    widths |= {group: size for group, size in without(GRAPH, names).items() if not size}
    resized = resize(RESNET, GRAPH, widths).eval()
    assert costs(resized, SMALL) == GRAPH.cost(widths)
    assert [*dict(resized.named_modules())] == [*dict(RESNET.named_modules())]


@given(st.sets(st.sampled_from(BRANCHES), min_size=1))
@torch.no_grad()
def test_a_network_without_branches_computes_what_it_does_where_they_return_zero(names):
    images = noise(SMALL)
    model = calibrated(build_model("resnet20"), images)
    kept = {group: torch.arange(0) for branch in GRAPH.branches if branch.name in names for group in branch.groups}
    removed = slice_weights(model, GRAPH, kept)(images)
    assert difference(silenced(model, names)(images), removed) < EXACT
    assert difference(model(images), removed) > EXACT


def test_some_groups_of_a_branch_alone_cannot_have_the_width_zero():
    graph = trace(build_model("torchvision:resnet50"), (3, 64, 64))
    first, second = graph.branches[0].groups
    with pytest.raises(UserError, match="either all of them have the width 0 or none has"):
        graph.check(graph.widths() | {first: 0})
    graph.check(graph.widths() | {first: 0, second: 0})
    with pytest.raises(UserError, match="must be a positive number"):
        graph.check(graph.widths() | {graph.prunable()[0].name: 0})


class Block(nn.Module):
    """A stem, ``operation(self, x)`` on 6 channels, and a head."""

    def __init__(self, operation):
        super().__init__()
        self.stem = chain(conv=conv3(2, 6), bn=nn.BatchNorm2d(6), relu=nn.ReLU())
        self.conv1, self.bn1, self.act = conv3(6, 8), nn.BatchNorm2d(8), nn.PReLU()
        self.conv2, self.bn2 = conv3(8, 6), nn.BatchNorm2d(6)
        self.shrink, self.scale = conv3(6, 6), nn.Parameter(torch.rand(6, 1, 1))
        self.relu = nn.ReLU(inplace=True)
        self.operation = operation
        self.head = head(6)

    def inner(self, x):
        return self.act(self.bn1(self.conv1(x)))

    def branch(self, x):
        return self.bn2(self.conv2(self.inner(x)))

    def forward(self, x):
        return self.head(self.operation(self, self.stem(x)))


def read_elsewhere(self, x):
    inner = self.inner(x)
    return x + self.bn2(self.conv2(inner)) + inner[:, :6].mean()


@pytest.mark.parametrize(
    "operation",
    [
        lambda self, x: x + self.branch(x),
        lambda self, x: self.branch(x) + x,
        lambda self, x: self.branch(x).add_(x),
    ],
    ids=["behind", "before", "in place"],
)
def test_a_branch_is_left_out_with_all_of_its_parameters(operation):
    model = Block(operation)
    graph = trace(model, INPUT)
    assert [branch.groups for branch in graph.branches] == [("conv1",)]
    assert graph.branches[0].params == 1  # of PReLU, which no term of the cost counts
    assert refuted_groups(model, graph).needed == {}
    widths = without(graph, ["bn2"])
    assert costs(resize(model, graph, widths).eval(), INPUT) == graph.cost(widths)


@pytest.mark.parametrize(
    "operation",
    [
        lambda self, x: self.branch(x),
        lambda self, x: x * self.branch(x),
        lambda self, x: self.shrink(x) + self.branch(x),
        lambda self, x: x + self.branch(x) * self.scale,
        lambda self, x: x + self.branch(self.branch(x)),
        read_elsewhere,
    ],
    ids=["no addition", "a product", "a projection", "scaled by no module", "called twice", "read elsewhere"],
)
def test_other_blocks_stay(operation):
    assert trace(Block(operation), INPUT).branches == ()


def test_a_branch_that_the_network_cannot_do_without_is_found_by_trying():
    """Its code asks a layer for what only a convolution has."""
    model = Block(lambda self, x: x + self.bn2(self.conv2(self.inner(x) * self.conv1.stride[0])))
    graph = trace(model, INPUT)
    refuted = refuted_groups(model, graph)
    assert [branch.name for branch in graph.branches] == [*refuted.needed] == ["bn2"]
    assert "has no attribute 'stride'" in refuted.needed["bn2"]
    assert refuted.frozen == {}
    assert refuted.corrected(graph).branches == ()
