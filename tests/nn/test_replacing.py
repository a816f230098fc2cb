"""Layers are replaced in a copy, wherever they were referenced, and only where nothing about them would be lost."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pfs_core.nn.folded_batchnorm import FoldedBatchNorm2d, fold_norms
from pfs_core.nn.frozen_conv import FrozenConv2d, freeze_convolutions
from pfs_core.nn.subsampled_conv import SubsampledConv2d, subsample_first

REPLACING = [
    (fold_norms, lambda: nn.BatchNorm2d(4), FoldedBatchNorm2d),
    (freeze_convolutions, lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False), FrozenConv2d),
    (subsample_first, lambda: nn.Conv2d(4, 4, 1, stride=2), SubsampledConv2d),
]
each = pytest.mark.parametrize(("replace", "layer", "kind"), REPLACING)


@each
def test_the_model_stays_what_it_is_and_the_copy_shares_its_tensors(replace, layer, kind):
    model = nn.Sequential(layer(), nn.ReLU())
    before = type(model[0])
    out = replace(model)
    assert type(model[0]) is before
    assert type(out[0]) is kind
    assert list(out.state_dict()) == list(model.state_dict())
    tensors = [*model.parameters(), *model.buffers()]
    assert all(a is b for a, b in zip([*out.parameters(), *out.buffers()], tensors, strict=True))


@each
def test_a_single_layer_is_replaced_as_well(replace, layer, kind):
    assert type(replace(layer())) is kind


@each
def test_a_layer_under_two_names_stays_one_layer(replace, layer, kind):
    shared = layer()
    model = nn.Sequential(shared, nn.Sequential(shared), shared)
    out = replace(model)
    assert type(out[0]) is kind
    assert out[0] is out[1][0] is out[2]
    assert list(out.state_dict()) == list(model.state_dict())


@each
def test_a_layer_that_a_plain_list_refers_to_is_replaced_there_too(replace, layer, kind):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer()
            self.layers = [self.layer]

        def forward(self, x):
            return self.layers[0](x)

    out = replace(Listed())
    assert type(out.layer) is kind
    assert out.layers[0] is out.layer
    x = torch.randn(2, 4, 6, 6)
    zeros = {"layer." + name: torch.zeros_like(tensor) for name, tensor in out.layer.named_parameters()}
    assert not functional_call(out, zeros, (x,)).any()


@each
def test_the_mode_and_what_needs_a_gradient_are_kept(replace, layer, kind):
    model = nn.Sequential(layer()).eval()
    model[0].weight.requires_grad_(False)
    out = replace(model)
    assert not out[0].training
    assert not out[0].weight.requires_grad


@each
def test_layers_with_hooks_or_attributes_of_the_users_are_left_alone(replace, layer, kind):
    hooked, marked = layer(), layer()
    hooked.register_forward_hook(lambda *_: None)
    marked.place = 3
    out = replace(nn.Sequential(hooked, marked))
    assert not any(isinstance(module, kind) for module in out)
    assert out[1].place == 3


@each
def test_no_random_number_is_drawn(replace, layer, kind):
    model = nn.Sequential(layer())
    state = torch.get_rng_state()
    replace(model)
    assert torch.equal(torch.get_rng_state(), state)


@each
def test_the_result_can_be_copied(replace, layer, kind):
    out = copy.deepcopy(replace(nn.Sequential(layer())))
    assert type(out[0]) is kind
    assert list(out.state_dict()) == list(nn.Sequential(layer()).state_dict())
