"""Attention between pixels, by products of any form: channels that are summed over or go through are followed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import trace
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT
from tests.channels.unusual import Unusual, check_costs


class Attention(nn.Module):
    """Queries and keys of 4 channels and values of 6, which ``attend(q, k, v)`` gets as [b, channels, pixels]."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        for name, width in (("q", 4), ("k", 4), ("v", 6)):
            setattr(self, name, nn.Sequential(nn.Conv2d(8, width, 1), nn.BatchNorm2d(width)))
        self.out = nn.Conv2d(6, 8, 1)

    def forward(self, x):
        b, _, h, w = x.shape
        return self.out(self.attend(*(layer(x).flatten(2) for layer in (self.q, self.k, self.v))).reshape(b, -1, h, w))


def in_heads(attend):
    """``attend`` on each of two heads, which get [b, 2, channels, pixels]."""

    def split(q, k, v):
        heads = (t.reshape(t.shape[0], 2, -1, t.shape[2]) for t in (q, k, v))
        return attend(*heads).reshape(v.shape[0], -1, v.shape[2])

    return split


def by_matmul(q, k, v):
    return v @ (q.transpose(-2, -1) @ k).softmax(-1).transpose(-2, -1)


def by_bmm(q, k, v):
    weights = torch.bmm(q.permute(0, 2, 1), k).softmax(-1)
    return torch.bmm(weights, v.permute(0, 2, 1)).permute(0, 2, 1)


def by_baddbmm(q, k, v):
    weights = torch.baddbmm(q.new_zeros(1, 1, 1), q.permute(0, 2, 1), k, alpha=0.5).softmax(-1)
    return torch.baddbmm(q.new_zeros(1, 1), weights, v.mT).mT


def by_einsum(q, k, v):
    return torch.einsum("bij,bcj->bci", torch.einsum("bci,bcj->bij", q, k).softmax(-1), v)


def fused(q, k, v):
    return F.scaled_dot_product_attention(q.mT, k.mT, v.mT, scale=0.5).mT


FORMS = {
    "matmul": by_matmul,
    "bmm": by_bmm,
    "baddbmm": by_baddbmm,
    "einsum": by_einsum,
    "fused": fused,
    "matmul in heads": in_heads(by_matmul),
    "fused in heads": in_heads(fused),
}


def check(model, graph):
    """What the graph says is proved, counted and, with random channels masked, what the pruned network computes."""
    assert proved(model, graph).groups == graph.groups
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED


@pytest.mark.parametrize("form", FORMS)
def test_queries_and_keys_are_equally_wide_and_values_have_a_width_of_their_own(form):
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.attention(x), attention=Attention(FORMS[form]))
    graph = trace(model, INPUT)
    gates = {group.name: group.gates for group in graph.prunable()}
    assert gates == {
        "conv1": ("bn1",),
        "attention.q.0": ("attention.q.1",),
        "attention.v.0": ("attention.v.1",),
        "attention.out": ("attention.out",),
        "conv2": ("bn2",),
    }
    check(model, graph)


def test_a_scale_by_the_width_leaves_queries_and_keys_as_they_are():
    model = Unusual(
        lambda self, x: self.attention(x),
        attention=Attention(lambda q, k, v: F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT),
    )
    graph = trace(model, INPUT)
    assert "divides by its width" in graph.group("attention.q.0").reason
    assert graph.group("attention.v.0").prunable
    check(model, graph)


class NonLocal(nn.Module):
    """A non-local block, whose code passes the width of three layers as one attribute."""

    def __init__(self):
        super().__init__()
        self.inner = 4
        self.g, self.theta, self.phi = (nn.Conv2d(8, 4, 1) for _ in range(3))
        self.back = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x):
        b, _, h, w = x.shape
        g, theta, phi = (layer(x).view(b, self.inner, -1) for layer in (self.g, self.theta, self.phi))
        mixed = torch.matmul(torch.matmul(theta.permute(0, 2, 1), phi).softmax(-1), g.permute(0, 2, 1))
        return x + self.back(mixed.permute(0, 2, 1).contiguous().view(b, self.inner, h, w))


class GlobalContext(nn.Module):
    """A mean over the pixels, weighted by a map of one channel."""

    def __init__(self):
        super().__init__()
        self.map, self.mix = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        weights = self.map(x).flatten(2).softmax(-1).unsqueeze(3)
        return x + self.mix((x.flatten(2).unsqueeze(1) @ weights).view(x.shape[0], -1, 1, 1))


class SelfAttention(nn.Module):
    """Attention that is added to what it is of, with a gain."""

    def __init__(self):
        super().__init__()
        self.f, self.g, self.h = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 8, 1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))
        return x + self.gain * torch.bmm(h, torch.bmm(f.mT, g).softmax(-1)).view_as(x)


BLOCKS = {
    "a non-local block": (NonLocal, {"conv1", "block.g", "conv2"}),
    "global context": (GlobalContext, {"conv1", "conv2"}),
    "self-attention": (SelfAttention, {"conv1", "block.f", "conv2"}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_with_attention_are_pruned(name):
    torch.manual_seed(0)
    block, prunable = BLOCKS[name]
    model = Unusual(lambda self, x: self.block(x), block=block())
    graph = trace(model, INPUT, "all")
    assert {group.name for group in graph.prunable()} == prunable
    check(model, graph)


NOT_FOLLOWED = {
    "channels by channels": lambda q, k, v: torch.bmm(torch.bmm(q, k.mT).softmax(-1), k).repeat(1, 2, 1)[:, :6],
    "values weighted by channels": lambda q, k, v: v * (q.mT @ k).diagonal(dim1=1, dim2=2).unsqueeze(1),
    "an einsum of three": lambda q, k, v: torch.einsum("bci,bcj,bdj->bdi", q, k, v),
    "a matrix of its width": lambda q, k, v: torch.bmm(q.new_ones(1, 6, 6).expand(q.shape[0], -1, -1), v),
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_cannot_be_followed_is_proved_to_be_right(name):
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.attention(x), attention=Attention(NOT_FOLLOWED[name]))
    graph = proved(model, trace(model, INPUT))
    check(model, graph)
