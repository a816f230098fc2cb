"""BatchNorm over folded pixels is BatchNorm."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.models import build_model
from pfs_core.nn.folded_batchnorm import FoldedBatchNorm2d, _folds, fold_norms


def norm(channels, dtype=torch.float64):
    """A BatchNorm with random scale, shift and statistics."""
    torch.manual_seed(channels)
    module = nn.BatchNorm2d(channels, momentum=0.3).to(dtype)
    nn.init.uniform_(module.weight)
    nn.init.normal_(module.bias)
    nn.init.normal_(module.running_mean)
    return module


def passed(module, x, grad):
    """Everything that a training step computes with it."""
    x = x.clone().requires_grad_()
    out = module(x)
    out.backward(grad)
    return [out.detach(), x.grad, module.weight.grad, module.bias.grad, *module.buffers()]


def both(module, x):
    """The same from torch's module and from ours."""
    grad = torch.randn_like(x)
    ours = fold_norms(nn.Sequential(copy.deepcopy(module)))[0]
    assert type(ours) is FoldedBatchNorm2d
    return zip(passed(module, x, grad), passed(ours, x, grad), strict=True)


def images(n, c, h, w, dtype=torch.float64):
    return (3 * torch.randn(n, c, h, w, dtype=dtype) + 1).contiguous(memory_format=torch.channels_last)


@given(c=st.integers(1, 50), n=st.integers(1, 4), h=st.sampled_from([4, 8, 6]), w=st.sampled_from([4, 8, 5]))
def test_folded_equals_torch(c, n, h, w):
    for theirs, ours in both(norm(c), images(n, c, h, w)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [5, 20, 40])
def test_folded_is_as_exact_in_bf16_as_torch(channels):
    x = images(16, channels, 8, 8)
    grad = torch.randn_like(x)
    exact = passed(norm(channels), x, grad)
    rounded = [each.bfloat16() for each in (x, grad)]
    theirs = passed(norm(channels, torch.float32), *rounded)
    ours = passed(fold_norms(nn.Sequential(norm(channels, torch.float32)))[0], *rounded)
    for truth, one, other in list(zip(exact, theirs, ours, strict=True))[:-1]:
        assert (other - truth).abs().mean() <= 1.1 * (one - truth).abs().mean() + 1e-6
        assert other.dtype == one.dtype


@pytest.mark.parametrize(
    ("shape", "folds"),
    [
        ((2, 20, 8, 8), True),
        ((2, 16, 8, 8), False),
        ((2, 13, 4, 4), True),
        ((2, 13, 2, 4), True),
        ((2, 13, 2, 3), False),
    ],
)
def test_what_cannot_gain_is_left_to_torch(shape, folds):
    x = images(*shape)
    assert _folds(x) == folds
    assert not _folds(x.contiguous())


def test_the_result_may_be_changed_in_place():
    module = fold_norms(nn.Sequential(norm(20), nn.ReLU6(inplace=True)))
    x = images(2, 20, 4, 4).requires_grad_()
    module(x).sum().backward()
    other = x.detach().clone().requires_grad_()
    nn.Sequential(norm(20), nn.ReLU6())(other).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_evaluation_is_torchs():
    module = norm(20).eval()
    x = images(2, 20, 4, 4)
    assert torch.equal(fold_norms(nn.Sequential(module))[0](x), module(x))


def test_the_copy_shares_parameters_and_statistics_and_nothing_else_changes():
    model = build_model("resnet20")
    folded = fold_norms(model)
    assert list(folded.state_dict()) == list(model.state_dict())
    for name, tensor in folded.state_dict().items():
        assert tensor.data_ptr() == model.state_dict()[name].data_ptr(), name
    assert type(model.bn1) is nn.BatchNorm2d
    folded.train()(torch.randn(2, 3, 32, 32))
    assert model.bn1.num_batches_tracked == 1


def test_norms_of_other_kinds_stay_what_they_are():
    class Own(nn.BatchNorm2d):
        pass

    layers = [Own(20), nn.BatchNorm2d(20, affine=False), nn.BatchNorm2d(20, momentum=None), nn.GroupNorm(2, 20)]
    assert [type(layer) for layer in fold_norms(nn.Sequential(*layers))] == [type(layer) for layer in layers]
