"""Channels are followed through every known operation, so that they can be counted, resized and masked."""

import pytest
import torch
import torch.nn.functional as F

from pfs_core.channels import trace
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT
from tests.channels.unusual import Unusual, check_costs, layers

KNOWN = {
    "two halves of the batch": (lambda self, x: self.conv(torch.cat([x, -x])), 8),
    "the same channels twice": (lambda self, x: torch.cat([x, x], 1), 16),
    "channels twice with a norm": (lambda self, x: self.wide(torch.cat([x, torch.relu(x)], 1)), 16),
    "a layer on two groups": (lambda self, x: self.conv(self.conv(x)), 8),
    "a layer on two tensors": (lambda self, x: torch.cat([self.one(x), self.one(self.conv(x))], 1), 6),
    "a sum over space": (lambda self, x: x + x.mean((2, 3), keepdim=True), 8),
    "new dimensions": (lambda self, x: x * x.flatten(2).amax(2)[:, :, None, None], 8),
    "attention over channels": (
        lambda self, x: x * x.mean((2, 3)).unsqueeze(1).sigmoid().transpose(1, 2).unsqueeze(-1),
        8,
    ),
    "pixels by transposes": (lambda self, x: self.linear(x.flatten(2).mT).mT.reshape(x.shape[0], -1, 8, 8), 8),
    "a linear layer over pixels": (lambda self, x: self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "a flag": (lambda self, x: F.dropout(x, 0.5, self.training and False), 8),
    "rows that are normalised": (lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "parts of a shape": (lambda self, x: F.interpolate(x[:, :, ::2], size=x.shape[-2:]), 8),
    "channels of depthwise groups, each more than once": (lambda self, x: self.repeat(x), 24),
    "a width plus a number": (lambda self, x: x.view(x.shape[0], x.shape[1] + 1 - 1, 8, 8), 8),
    "another tensor's shape": (lambda self, x: torch.relu(x).view(x.shape), 8),
    "the maximum with its places": (lambda self, x: self.pool(x)[0], 8),
    "halves": (lambda self, x: torch.cat([self.halved(x.chunk(2, 1)[0]), x.chunk(2, 1)[1]], 1), 8),
    "halves that are unbound": (lambda self, x: torch.cat(x.view(x.shape[0], 2, -1, 8, 8).unbind(1)[::-1], 1), 8),
    "quarters, added": (lambda self, x: torch.stack(x.chunk(4, 1)).sum(0), 2),
    "the sum of branches": (lambda self, x: sum(layer(x) for layer in (self.conv, self.other)), 8),
    "stacked branches": (lambda self, x: torch.stack([self.conv(x), self.other(x)]).sum(0), 8),
    "the larger of two": (lambda self, x: torch.max(self.conv(x), self.other(x)), 8),
    "groups that are joined and added": (lambda self, x: torch.cat([self.one(x), self.five(x)], 1) + self.conv(x), 8),
    "pixels of a focus": (lambda self, x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1), 16),
    "pixels to channels and back": (lambda self, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), 8),
    "channels to pixels": (lambda self, x: F.pixel_shuffle(self.twice(x), 2), 4),
    "channels that come twice to pixels": (lambda self, x: F.pixel_shuffle(torch.cat([x, x], 1), 2), 4),
    "channels of half of them to pixels": (lambda self, x: F.pixel_shuffle(self.twice(x).chunk(2, 1)[0], 2), 2),
    "patches of a layer": (lambda self, x: F.fold(self.twice(x).flatten(2), (9, 9), 2)[..., :8, :8], 4),
    "a layer and channels of depthwise groups": (lambda self, x: self.twice(x) + self.two_each(x), 16),
    "channels of depthwise groups and two layers": (
        lambda self, x: self.two_each(x) * torch.cat([self.conv(x), self.other(x)], 1).sigmoid(),
        16,
    ),
    "a product by einsum": (lambda self, x: torch.einsum("nchw,nchw->nchw", x, self.conv(x)), 8),
    "a split by a list of numbers": (lambda self, x: self.by_list(x), 8),
    "a split by a number": (lambda self, x: self.by_number(x), 8),
    "a split by two numbers": (lambda self, x: self.by_numbers(x), 8),
    "a split by one number twice": (lambda self, x: self.by_pair(x), 8),
    "parts of two layers by one number": (lambda self, x: self.by_joined(x), 8),
    "a kernel in a buffer of a module that has its width": (lambda self, x: self.blurred(x), 8),
    "a clipped range": (lambda self, x: torch.clamp(x, -1, 6), 8),
    "a mean of two branches": (lambda self, x: torch.lerp(self.conv(x), self.other(x), 0.3), 8),
    "a mean by weights of each channel": (lambda self, x: torch.lerp(self.conv(x), self.other(x), self.gains), 8),
    "a mean by computed weights": (lambda self, x: torch.lerp(x, self.conv(x), self.other(x).sigmoid()), 8),
    "a sum with a product": (lambda self, x: torch.addcmul(x, self.conv(x), self.other(x).sigmoid(), value=0.5), 8),
    "a sum with weights of each channel": (lambda self, x: torch.addcmul(x, self.gains, self.conv(x)), 8),
    "a sum of groups that are joined": (
        lambda self, x: torch.addcmul(torch.cat([self.one(x), self.five(x)], 1), self.conv(x), self.other(x)),
        8,
    ),
    "a threshold": (lambda self, x: F.threshold(x, 0.1, 0.0), 8),
    "a threshold below 0": (lambda self, x: F.threshold(x, -0.1, -1.0), 8),
    "a threshold that sets a number": (lambda self, x: self.conv(F.threshold(x, 0.1, -1.0)), 8),
    "a quotient": (lambda self, x: x / (1 + self.conv(x).abs()), 8),
    "a quotient of its own": (lambda self, x: x / (1 + x.abs()), 8),
    "every channel twice": (lambda self, x: x.repeat_interleave(2, 1), 16),
    "a power": (lambda self, x: F.relu(x) ** 2, 8),
    "a gain": (lambda self, x: self.conv(x * self.gain), 8),
    "a gain of each channel": (lambda self, x: self.conv(x * self.gains), 8),
    "a kernel of each channel in a buffer": (lambda self, x: F.conv2d(x, self.blur, padding=1, groups=x.shape[1]), 8),
    "attention between two branches": (
        lambda self, x: (
            torch.stack([x, self.conv(x)], 1) * self.twice(x).view(-1, 2, x.shape[1], 8, 8).softmax(1)
        ).sum(1),
        8,
    ),
    "a batch norm by its function": (lambda self, x: self.subclass(x), 8),
    "a convolution by its function": (lambda self, x: self.own(x), 8),
    "a global response": (
        lambda self, x: x + x * (x.norm(dim=(2, 3), keepdim=True) / (1 + x.mean((1, 2, 3), keepdim=True))),
        8,
    ),
    "a kernel over channels": (
        lambda self, x: x * self.over(x.mean((2, 3)).unsqueeze(1)).sigmoid().view(x.shape[0], -1, 1, 1),
        8,
    ),
    "one channel added to all": (lambda self, x: x + self.single(x), 8),
    "one channel repeated for all": (lambda self, x: x * self.single(x).sigmoid().repeat(1, x.shape[1], 1, 1), 8),
    "one channel expanded for all": (lambda self, x: x * self.single(x).sigmoid().expand(-1, x.shape[1], -1, -1), 8),
    "one channel expanded as all": (lambda self, x: self.single(x).expand_as(x) + x, 8),
    "one channel repeated as features": (
        lambda self, x: (x.flatten(1) * self.single(x).repeat(1, x.shape[1], 1, 1).flatten(1)).view(x.shape),
        8,
    ),
    "a mean over the channels": (lambda self, x: x * x.mean(1, keepdim=True), 8),
    "depthwise upsampling": (lambda self, x: self.up(x), 8),
    "grouped upsampling": (lambda self, x: self.grouped(x), 8),
    "channels that are normalised": (lambda self, x: self.conv(F.normalize(x, dim=1)), 8),
    "channels by their norm": (lambda self, x: self.conv(x / (1 + x.norm(dim=1, keepdim=True))), 8),
    "a shuffle": (lambda self, x: F.channel_shuffle(x, 2), 8),
    "a shuffle by hand": (
        lambda self, x: x.view(x.shape[0], 2, x.shape[1] // 2, 8, 8).transpose(1, 2).reshape(x.shape),
        8,
    ),
    "a shuffle between grouped layers": (lambda self, x: self.halves(F.channel_shuffle(self.split(x), 2)), 8),
    "a choice of numbers": (lambda self, x: torch.where(x > 0, x, 0.1 * x), 8),
    "a choice of two branches": (lambda self, x: torch.where(x > 0, self.conv(x), self.other(x)), 8),
    "a choice of zeros": (lambda self, x: torch.where(x > 0.1, x, torch.zeros_like(x)), 8),
    "masked values": (lambda self, x: x.masked_fill(x < 0.1, 0), 8),
    "a gated linear unit": (lambda self, x: F.glu(x, 1), 4),
    "a power by a parameter": (lambda self, x: self.conv(F.relu(x).add(1).pow(self.gain)), 8),
    "places of space": (lambda self, x: x[:, :, torch.arange(0, 8, 2)][..., torch.arange(0, 8, 2)], 8),
    "selected rows": (lambda self, x: x.index_select(2, torch.tensor([0, 3])), 8),
    "the largest of space": (lambda self, x: F.relu(x - x.flatten(2).topk(5, 2)[0][..., -1:, None]), 8),
    "coordinates beside the channels": (
        lambda self, x: torch.cat([x, x.new_ones(8).cumsum(0).expand(x.shape[0], 1, 8, 8)], 1),
        9,
    ),
    "zeros of its shape": (lambda self, x: torch.maximum(x, x.new_zeros(x.shape)), 8),
    "patches": (lambda self, x: F.unfold(x, 3, padding=1).view(x.shape[0], -1, 8, 8), 72),
    "patches weighted by a kernel of every pixel": (
        lambda self, x: (
            F.unfold(x, 3, padding=1).view(x.shape[0], x.shape[1], 9, 8, 8) * self.nine(x).unsqueeze(1)
        ).sum(2),
        8,
    ),
    "patches and back": (lambda self, x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1), 8),
    "windows": (lambda self, x: x.unfold(2, 2, 2).mean(-1), 8),
    "features and back": (lambda self, x: x.flatten(1).view(x.shape), 8),
    "features, the channels last": (
        lambda self, x: self.to_eight(x.permute(0, 2, 3, 1).flatten(1))[:, :, None, None].expand(-1, -1, 8, 8),
        8,
    ),
    "rows, the channels last": (
        lambda self, x: (
            self.to_rows(x.permute(0, 2, 3, 1).flatten(2)).permute(0, 2, 1)[..., None].expand(-1, -1, -1, 8)
        ),
        8,
    ),
    "features, the channels between": (
        lambda self, x: self.to_eight(x.transpose(1, 2).reshape(x.shape[0], -1))[:, :, None, None].expand(-1, -1, 8, 8),
        8,
    ),
    "one kernel for all channels": (
        lambda self, x: F.conv2d(x, self.blur[:1].expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1]),
        8,
    ),
    "one kernel for all channels, repeated": (
        lambda self, x: F.conv2d(x, self.blur[:1].repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]),
        8,
    ),
    "a view of so many channels": (lambda self, x: self.by_width(x).reshape(x.shape), 8),
    "a view of blocks of so many channels": (lambda self, x: self.by_block(x), 4),
    "a view of so many features": (lambda self, x: self.by_features(x), 8),
    "a depthwise kernel of so many channels": (lambda self, x: self.by_groups(x), 8),
    "pixels times a matrix": (lambda self, x: (x.permute(0, 2, 3, 1) @ self.matrix).permute(0, 3, 1, 2), 8),
    "pixels times a transposed matrix": (
        lambda self, x: (x.permute(0, 2, 3, 1) @ self.matrix.T).permute(0, 3, 1, 2),
        8,
    ),
    "a matrix times pixels": (lambda self, x: (self.matrix @ x.flatten(2)).view(x.shape[0], -1, 8, 8), 8),
    "a layer on each image": (lambda self, x: torch.cat([self.conv(image[None, :, 1:]) for image in x]), 8),
    "images in another order": (lambda self, x: x + x[torch.arange(x.shape[0]).flip(0)], 8),
    "a product over space": (lambda self, x: x + x[..., 0, :2].prod(2)[..., None, None], 8),
    "maps that are normalised": (lambda self, x: self.conv(self.map_norm(x)), 8),
    "a scale expanded": (lambda self, x: x * self.gains.unsqueeze(0).expand_as(x), 8),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_counted_resized_and_masked(name):
    torch.manual_seed(0)
    operation, out = KNOWN[name]
    model = Unusual(operation, out, **layers())
    graph = trace(model, INPUT, "all")
    segments = next(axis.segments for axis in graph.axes if (axis.module, axis.role) == ("conv1", "writes"))
    assert all(graph.group(segment.group).resizable for segment in segments)
    assert proved(model, graph) == graph
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED
