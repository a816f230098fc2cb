"""Whatever handler is wrong, the proof finds the groups that it is wrong about, and what is left holds."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import Refuted, refuted_groups, resize, trace
from pfs_core.channels.abstract_values import Channels, TracedSlice
from pfs_core.channels.handlers.table import HANDLERS
from pfs_core.channels.nodes import first
from tests.channels.masking import EXACT, by_mask, calibrated, noise, random_kept
from tests.channels.networks import INPUT, conv3
from tests.channels.unusual import Unusual


def layers():
    return {
        "conv": conv3(8, 8),
        "halved": conv3(4, 4),
        "linear": nn.Linear(8, 8),
        "layer_norm": nn.LayerNorm(8),
        "prelu": nn.PReLU(8),
        "matrix": nn.Parameter(torch.randn(8, 8)),
        "gains": nn.Parameter(torch.rand(8, 1, 1) + 0.5),
    }


USES = {
    "convolution": (lambda net, x: net.conv(x), 8),
    "linear": (lambda net, x: net.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "product": (lambda net, x: (net.matrix @ x.flatten(2)).view(x.shape[0], -1, 8, 8), 8),
    "added_product": (
        lambda net, x: (
            torch.baddbmm(x.new_zeros(1, 1, 1), (x.flatten(2).mT @ x.flatten(2)).softmax(2), x.flatten(2).mT)
        ).mT.reshape(x.shape),
        8,
    ),
    "einsum": (lambda net, x: torch.einsum("nchw,nchw->nchw", x, net.conv(x)), 8),
    "attention": (
        lambda net, x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3, scale=0.5).mT.reshape(x.shape),
        8,
    ),
    "batch_norm": (lambda net, x: x, 8),
    "layer_norm": (lambda net, x: net.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "group_norm": (lambda net, x: F.group_norm(x, 1), 8),
    "prelu": (lambda net, x: net.prelu(x), 8),
    "keeps_zero": (lambda net, x: F.relu(x), 8),
    "breaks_zero": (lambda net, x: torch.sigmoid(x), 8),
    "clip": (lambda net, x: torch.clamp(x, 0.5, 6), 8),
    "threshold": (lambda net, x: F.threshold(x, 0.1, 1.0), 8),
    "power": (lambda net, x: x.abs() ** 0, 8),
    "add": (lambda net, x: x + net.conv(x), 8),
    "multiply": (lambda net, x: x * net.conv(x), 8),
    "mix": (lambda net, x: torch.lerp(x, net.conv(x), 0.3), 8),
    "add_product": (lambda net, x: torch.addcmul(net.gains, net.gains, x), 8),
    "divide": (lambda net, x: x / (1 + x.abs()), 8),
    "pool": (lambda net, x: F.max_pool2d(x, 2), 8),
    "pad": (lambda net, x: F.pad(x, (1, 1), value=0.5), 8),
    "move_pixels": (lambda net, x: x.flip(3), 8),
    "pixel_unshuffle": (lambda net, x: F.pixel_unshuffle(x, 2), 32),
    "pixel_shuffle": (lambda net, x: F.pixel_shuffle(x.repeat_interleave(4, 1), 2), 8),
    "view": (lambda net, x: x.flatten(2).unflatten(2, (8, 8)), 8),
    "view_as": (lambda net, x: x.flatten(2).view_as(x), 8),
    "reorder": (lambda net, x: x.transpose(2, 3), 8),
    "unsqueeze": (lambda net, x: x.unsqueeze(4).amax(4), 8),
    "squeeze": (lambda net, x: x[:, :, None].squeeze(2), 8),
    "concatenate": (lambda net, x: torch.cat([x, net.conv(x)], 1), 16),
    "stack": (lambda net, x: torch.stack([x, net.conv(x)]).sum(0), 8),
    "take": (lambda net, x: x[..., ::2, ::2], 8),
    "split": (lambda net, x: torch.cat([net.halved(half) for half in x.chunk(2, 1)], 1), 8),
    "unbind": (lambda net, x: sum(x.view(x.shape[0], 2, -1, 8, 8).unbind(1)), 4),
    "repeat": (lambda net, x: x.repeat(1, 2, 1, 1), 16),
    "repeat_interleave": (lambda net, x: x.repeat_interleave(2, 1), 16),
    "expand": (lambda net, x: x[:, :, :1].expand(-1, -1, 8, -1), 8),
    "reduce": (lambda net, x: x.mean(3, keepdim=True), 8),
    "softmax": (lambda net, x: x.softmax(3), 8),
    "fresh": (lambda net, x: torch.maximum(x, x.new_ones(x.shape)), 8),
    "compare": (lambda net, x: (x < 0.1).to(x.dtype), 8),
    "choose": (lambda net, x: x.masked_fill(x < 0.1, 1.0), 8),
    "glu": (lambda net, x: F.glu(x, 1), 4),
    "index": (lambda net, x: x[:, :, torch.arange(0, 8, 2)], 8),
    "channel_shuffle": (lambda net, x: F.channel_shuffle(x, 2), 8),
    "patches": (lambda net, x: F.unfold(x, 3, padding=1).view(x.shape[0], -1, 8, 8), 72),
    "from_patches": (lambda net, x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2), 8),
    "windows": (lambda net, x: x.unfold(2, 2, 2).mean(-1), 8),
}
"""A use of an operator of every handler, and the channels that come out of it."""
BREAK_ZERO = ("group_norm", "breaks_zero", "clip", "threshold", "power", "pad", "softmax", "fresh", "compare", "choose")
"""Handlers of operators that turn the 0 of a masked channel into something else."""


def loses_the_channels(handler):
    """The handler, but what comes out has nothing to do with what went in."""

    def wrong(tracer, node):
        value = handler(tracer, node)
        return tuple(map(lost, value)) if isinstance(value, tuple) else lost(value)

    def lost(value):
        if not isinstance(value, Channels):
            return value
        tracer = HANDLING[0]
        group = tracer._new_group(f"lost{len(tracer._drafts)}", tracer.features(value.parts))
        return replace(value, parts=(TracedSlice(group, gates=value.parts[0].gates),), outer=None)

    return wrong


def takes_zero_for_kept(handler):
    """Not the handler: what comes out is what went in, with the same gates."""
    return lambda tracer, node: tracer.channels(first(node))


HANDLING = []
"""The tracer of the trace that is under way."""


def check_that_it_is_caught(monkeypatch, name, mutation):
    def told(handler):
        def tell(tracer, node):
            HANDLING[:] = [tracer]
            return handler(tracer, node)

        return tell

    for operator, handler in list(HANDLERS.items()):
        if handler.__name__ == name:
            monkeypatch.setitem(HANDLERS, operator, told(mutation(handler)))
    torch.manual_seed(0)
    operation, out = USES[name]
    model = Unusual(operation, out, **layers())
    traced = trace(model, INPUT, "all")
    refuted = refuted_groups(model, traced)
    assert refuted != Refuted({}, {})
    graph = refuted.corrected(traced)
    narrow = {g.name: g.per_gate if g.resizable else g.width for g in graph.groups}
    assert resize(model, graph, narrow)(torch.randn(2, *INPUT)).isfinite().all()
    outputs = by_mask(calibrated(model, INPUT), graph, random_kept(graph, seed=1), noise(INPUT))
    assert outputs.error() < EXACT


def test_every_handler_is_tried():
    assert {handler.__name__ for handler in HANDLERS.values()} == set(USES)


@pytest.mark.parametrize("name", USES)
def test_a_handler_that_loses_the_channels_is_caught(monkeypatch, name):
    check_that_it_is_caught(monkeypatch, name, loses_the_channels)


@pytest.mark.parametrize("name", BREAK_ZERO)
def test_a_handler_that_takes_zero_for_kept_is_caught(monkeypatch, name):
    check_that_it_is_caught(monkeypatch, name, takes_zero_for_kept)
