"""Convolutions with frozen weights compute what torch's compute, however they do it."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.nn import frozen_conv
from pfs_core.nn.frozen_conv import FrozenConv2d, freeze_convolutions


def conv(inputs, outputs, size, dtype=torch.float64, **options):
    torch.manual_seed(inputs)
    options = {"padding": (size[0] // 2, size[1] // 2), "bias": False, **options}
    return nn.Conv2d(inputs, outputs, size, **options).to(dtype).requires_grad_(False)


def images(n, c, h, w, dtype=torch.float64):
    return torch.randn(n, c, h, w, dtype=dtype).contiguous(memory_format=torch.channels_last)


def passed(module, x, grad):
    """The output and the gradient of the input."""
    x = x.clone().requires_grad_()
    out = module(x)
    out.backward(grad)
    return out.detach(), x.grad


def frozen(module):
    (ours,) = freeze_convolutions(nn.Sequential(copy.deepcopy(module)))
    assert type(ours) is FrozenConv2d
    return ours


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)),
    outputs=st.integers(1, 9),
    size=st.sampled_from([(3, 3), (1, 3), (5, 1), (5, 3), (5, 5)]),
    many=st.booleans(),
)
def test_it_is_the_same_convolution(shape, outputs, size, many):
    module, x = conv(shape[1], outputs, size), images(*shape)
    grad = images(shape[0], outputs, *shape[2:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_conv, "MANY_WEIGHTS", 0 if many else 10**9)
        for theirs, ours in zip(passed(module, x, grad), passed(frozen(module), x, grad), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_it_is_as_exact_in_bf16_as_torch(side, monkeypatch):
    monkeypatch.setattr(frozen_conv, "MANY_WEIGHTS", 0)
    module = conv(96, 80, (3, 3), torch.bfloat16)
    x, grad = (images(8, channels, side, side, torch.bfloat16) for channels in (96, 80))
    exact = passed(copy.deepcopy(module).double(), x.double(), grad.double())
    pairs = zip(exact, passed(module, x, grad), passed(frozen(module), x, grad), strict=True)
    for truth, theirs, ours in pairs:
        assert ours.dtype == torch.bfloat16
        assert (ours - truth).abs().mean() <= 1.1 * (theirs - truth).abs().mean()


def test_it_says_how_a_map_is_computed(monkeypatch):
    """Tiny maps by a product, larger ones with many weights in NCHW, and the others by torch."""
    products, swapped = [], []
    monkeypatch.setattr(FrozenConv2d, "_matrix", lambda self, *size: products.append(size) or torch.zeros(1))
    monkeypatch.setattr(frozen_conv, "_convolved", lambda x, *_: swapped.append(x.shape[2:]) or x)
    few, many = conv(8, 8, (3, 3), torch.float32), conv(512, 512, (3, 3), torch.float32)
    for side in (2, 4, 5):
        for module in (few, many):
            x = images(1, module.in_channels, side, side, torch.float32)
            if side == 2:
                with pytest.raises(RuntimeError):  # the product with what was put in the matrix's place
                    frozen(module)(x)
            else:
                frozen(module)(x)
    assert products == [(2, 2), (2, 2)]
    assert swapped == [(4, 4)]


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"bias": True}, {"groups": 2}, {"padding_mode": "circular"}],
)
def test_other_convolutions_stay_what_they_are(options):
    modules = freeze_convolutions(nn.Sequential(conv(4, 4, (3, 3), **options), conv(4, 4, (1, 1))))
    assert [type(module) for module in modules] == [nn.Conv2d] * 2


def test_what_is_cached_is_in_no_state():
    module = frozen(conv(4, 6, (3, 3)))
    module(images(2, 4, 2, 2))
    assert list(module.state_dict()) == ["weight"]
    assert module._cache.keys() == {(2, 2)}
