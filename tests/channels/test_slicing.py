"""Which weights of which layer stay: cases small enough to write down."""

import pytest
import torch
from torch import nn

from pfs_core.channels import slice_weights, trace
from pfs_core.errors import UserError
from tests.channels.networks import INPUT, chain, conv3, head


class Concat(nn.Module):
    """Two convolutions of 3 and 4 channels side by side, then ``rest``."""

    def __init__(self, **rest):
        super().__init__()
        self.a, self.b = conv3(2, 3), conv3(2, 4)
        self.rest = chain(**rest)

    def forward(self, x):
        return self.rest(torch.cat([self.a(x), self.b(x)], 1))


def cut(model, **kept):
    torch.manual_seed(0)
    graph = trace(model, INPUT)
    return slice_weights(model, graph, {name: torch.tensor(index) for name, index in kept.items()})


def test_behind_a_concat_the_channels_of_both_sides_stay():
    model = Concat(bn=nn.BatchNorm2d(7), conv=conv3(7, 6), head=head(6))
    pruned = cut(model, a=[0, 2], b=[1, 3])
    assert torch.equal(pruned.a.weight, model.a.weight[[0, 2]])
    assert torch.equal(pruned.b.weight, model.b.weight[[1, 3]])
    assert torch.equal(pruned.rest.conv.weight, model.rest.conv.weight[:, [0, 2, 4, 6]])
    assert pruned.rest.bn.num_features == 4


def test_the_statistics_of_a_norm_behind_a_concat_stay_with_their_channels():
    model = Concat(bn=nn.BatchNorm2d(7), conv=conv3(7, 6), head=head(6))
    model.rest.bn.running_mean.copy_(torch.arange(7.0))
    model.rest.bn.running_var.copy_(torch.arange(10.0, 17.0))
    pruned = cut(model, a=[1], b=[0, 3])
    assert pruned.rest.bn.running_mean.tolist() == [1, 3, 6]
    assert pruned.rest.bn.running_var.tolist() == [11, 13, 16]


def test_behind_a_flattened_concat_every_pixel_of_a_channel_stays():
    model = Concat(pool=nn.MaxPool2d(4), flatten=nn.Flatten(), fc=nn.Linear(28, 5))
    pruned = cut(model, a=[2], b=[0, 3])
    assert torch.equal(pruned.rest.fc.weight, model.rest.fc.weight[:, [*range(8, 16), *range(24, 28)]])


def test_the_same_channels_twice_stay_in_both_places():
    class Twice(Concat):
        def forward(self, x):
            a = self.a(x)
            return self.rest(torch.cat([a, self.b(x), a], 1))

    model = Twice(conv=conv3(10, 6), head=head(6))
    assert torch.equal(cut(model, a=[1]).rest.conv.weight, model.rest.conv.weight[:, [1, 3, 4, 5, 6, 8]])


def test_a_depthwise_multiplier_keeps_all_outputs_of_a_channel():
    model = chain(conv=conv3(2, 4), depthwise=nn.Conv2d(4, 12, 3, groups=4), point=nn.Conv2d(12, 6, 1), head=head(6))
    pruned = cut(model, conv=[1, 3])
    outputs = [3, 4, 5, 9, 10, 11]
    assert torch.equal(pruned.depthwise.weight, model.depthwise.weight[outputs])
    assert torch.equal(pruned.depthwise.bias, model.depthwise.bias[outputs])
    assert torch.equal(pruned.point.weight, model.point.weight[:, outputs])
    assert (pruned.depthwise.in_channels, pruned.depthwise.out_channels, pruned.depthwise.groups) == (2, 6, 2)


def grouped():
    return chain(
        conv1=conv3(2, 8),
        conv2=conv3(8, 12, groups=2),
        bn=nn.BatchNorm2d(12),
        conv3=conv3(12, 6, groups=3),
        head=head(6),
    )


def test_a_gate_of_a_grouped_convolution_is_that_of_one_channel_a_group():
    model = grouped()
    pruned = cut(model, conv1=[0, 3])
    assert torch.equal(pruned.conv1.weight, model.conv1.weight[[0, 3, 4, 7]])
    assert torch.equal(pruned.conv2.weight, model.conv2.weight[:, [0, 3]])
    assert pruned.conv2.groups == 2


def test_between_unequal_groups_a_gate_is_that_of_their_common_multiple():
    """Of the 12 channels between 2 and 3 groups, every second one: 0, 2, 4, 6, 8, 10."""
    model = grouped()
    pruned = cut(model, conv2=[0])
    stay = [0, 2, 4, 6, 8, 10]
    assert torch.equal(pruned.conv2.weight, model.conv2.weight[stay])
    assert pruned.bn.num_features == 6
    assert torch.equal(pruned.conv3.weight, model.conv3.weight[:, [0, 2]])
    assert (pruned.conv3.in_channels, pruned.conv3.groups) == (6, 3)


def test_a_transposed_convolution_is_cut_on_its_own_sides():
    model = chain(conv=conv3(2, 4), up=nn.ConvTranspose2d(4, 6, 2, 2, groups=2), head=head(6))
    pruned = cut(model, conv=[1], up=[0, 2])
    assert torch.equal(pruned.up.weight, model.up.weight[[1, 3]][:, [0, 2]])
    assert torch.equal(pruned.up.bias, model.up.bias[[0, 2, 3, 5]])


def test_slopes_and_norms_over_channels_stay_with_their_channels():
    model = chain(conv=conv3(2, 4), act=nn.PReLU(4), norm=nn.GroupNorm(2, 4), fc=conv3(4, 6), head=head(6))
    nn.init.normal_(model.act.weight)
    nn.init.normal_(model.norm.weight)
    pruned = cut(model, conv=[1])
    assert torch.equal(pruned.act.weight, model.act.weight[[2, 3]])
    assert torch.equal(pruned.norm.weight, model.norm.weight[[2, 3]])
    assert pruned.norm.num_channels == 2


def test_more_gates_than_there_are_cannot_be_kept():
    with pytest.raises(UserError, match="must be a positive number"):
        cut(grouped(), conv2=[])
