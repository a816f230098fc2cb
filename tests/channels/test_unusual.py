"""Unusual networks: whatever their graph allows holds for them too, and what it cannot know it does not allow."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import refuted_groups, resize, trace
from pfs_core.errors import UserError
from tests.channels.counting import counted
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, chain, conv3, head


class Unusual(nn.Module):
    """conv, BN, then ``operation(self, x)``, which gives ``out`` channels, then conv, BN and a head."""

    def __init__(self, operation, out=8, **layers):
        super().__init__()
        self.conv1, self.bn1 = conv3(2, 8), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = conv3(out, 6), nn.BatchNorm2d(6)
        self.operation = operation
        self.head = head(6)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(self.bn2(self.conv2(self.operation(self, self.bn1(self.conv1(x))))))


def two_sizes(x):
    return x.view(x.shape[0], -1, x.shape[1] * 1, 8)


def aliased(self, x):
    alias = x
    x.sigmoid_()
    return alias


def augmented(self, x):
    alias = nn.Identity()(x)
    x += 1
    return alias


def aliased_view(self, x):
    alias = x.flatten(2)
    x.sigmoid_()
    return alias.view(alias.shape[0], -1, 8, 8)


UNKNOWABLE = {
    "features of an unknown operation times a number": lambda self, x: torch.roll(x, 1, 1) * 2,
    "features of an unknown operation plus a number": lambda self, x: 1 + torch.roll(x, 1, 1),
    "a width as a height": lambda self, x: F.interpolate(x, size=(x.shape[1], 4)),
    "a width as a border": lambda self, x: x[:, :, : x.shape[1]],
    "a width as a factor": lambda self, x: x / x.shape[1],
    "a width as a number": lambda self, x: x.view(-1, 8, 64).unflatten(2, (8, 8)),
    "a width times a number": lambda self, x: two_sizes(x),
    "a slice of a number of channels": lambda self, x: torch.cat([x, x], 1)[:, :8],
    "a squeeze that drops a single channel": lambda self, x: (
        x * x.mean((2, 3), True).squeeze().reshape(x.shape[0], x.shape[1], 1, 1)
    ),
    "a loop over the channels": lambda self, x: torch.stack([x[:, i] for i in range(8)], 1),
}


@pytest.mark.parametrize("name", UNKNOWABLE)
def test_what_depends_on_a_width_in_an_unknown_way_is_not_pruned(name):
    model = Unusual(UNKNOWABLE[name])
    graph = proved(model, trace(model, INPUT, "all"))
    assert not graph.group("conv1").prunable
    assert graph.group("conv1").reason
    assert graph.group("conv2").prunable
    check_costs(model, graph)


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
    "a split by a list of numbers": (lambda self, x: self.by_list(x), 8),
    "a split by a number": (lambda self, x: self.by_number(x), 8),
    "a split by two numbers": (lambda self, x: self.by_numbers(x), 8),
    "a kernel in a buffer of a module that has its width": (lambda self, x: self.blurred(x), 8),
    "a clipped range": (lambda self, x: torch.clamp(x, -1, 6), 8),
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
    "one kernel for all channels": (
        lambda self, x: F.conv2d(x, self.blur[:1].expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1]),
        8,
    ),
    "one kernel for all channels, repeated": (
        lambda self, x: F.conv2d(x, self.blur[:1].repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]),
        8,
    ),
    "a scale expanded": (lambda self, x: x * self.gains.unsqueeze(0).expand_as(x), 8),
}


class Numbered(nn.Module):
    """Splits its input by numbers that it has as attributes, and takes so many channels of what it computes."""

    def __init__(self, kind):
        super().__init__()
        self.others = [torch.ones(2), torch.ones(2)]
        self.kind, self.sizes, self.width, self.left, self.right, self.outputs = kind, [2, 6], 4, 6, 2, 16
        self.small, self.big, self.four = conv3(2, 2), conv3(6, 6), conv3(4, 4)
        self.first, self.eight = conv3(6, 6), conv3(8, 8)

    def forward(self, x):
        if self.kind == "list":
            a, b = torch.split(x, self.sizes, 1)
            return torch.cat([self.small(a), self.big(b)], 1)
        if self.kind == "number":
            a, b = torch.split(x, self.width, 1)
            return torch.cat([self.four(a), a + b], 1)
        if self.kind == "numbers":
            a, b = torch.split(x, [self.left, self.right], 1)
            return torch.cat([self.first(a), b], 1)
        return torch.cat([x, self.eight(x)], 1)[:, : self.outputs]


class Blur(nn.Module):
    """A fixed kernel of each channel, whose number is an attribute."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.kernel = nn.Buffer(torch.rand(channels, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.kernel, padding=1, groups=self.channels)


class Subclass(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the function with its own tensors, and an activation."""

    def forward(self, x):
        return F.silu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training))


class Own(nn.Conv2d):
    """A convolution of one's own class."""

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=1) * 2


def layers():
    return {
        "pool": nn.MaxPool2d(3, 1, 1, return_indices=True),
        "blurred": Blur(8),
        "by_list": Numbered("list"),
        "by_number": Numbered("number"),
        "by_numbers": Numbered("numbers"),
        "by_end": Numbered("end"),
        "single": conv3(8, 1),
        "nine": nn.Conv2d(8, 9, 1),
        "split": conv3(8, 8, groups=2),
        "halves": conv3(8, 8, groups=2),
        "halved": conv3(4, 4),
        "other": conv3(8, 8),
        "five": conv3(8, 5),
        "twice": conv3(8, 16),
        "gain": nn.Parameter(torch.ones(())),
        "gains": nn.Parameter(torch.rand(8, 1, 1) + 0.5),
        "subclass": Subclass(8),
        "own": Own(8, 8, 3),
        "over": nn.Conv1d(1, 1, 3, padding=1),
        "blur": nn.Buffer(torch.rand(8, 1, 3, 3)),
        "conv": conv3(8, 8),
        "wide": nn.BatchNorm2d(16),
        "one": nn.Conv2d(8, 3, 1),
        "linear": nn.Linear(8, 8),
        "norm": nn.LayerNorm(8),
        "repeat": conv3(8, 24, groups=8),
        "up": nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
        "grouped": nn.ConvTranspose2d(8, 8, 2, 2, groups=2),
    }


class Computed(nn.BatchNorm2d):
    """A BatchNorm whose scale, or shift, is not its parameter itself."""

    def __init__(self, scale, shift):
        super().__init__(8)
        self.scale, self.shift = scale, shift

    def forward(self, x):
        scale, shift = self.scale(self.weight), self.shift(self.bias)
        return F.batch_norm(x, self.running_mean, self.running_var, scale, shift, self.training)


class Positive(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, weight):
        return F.softplus(weight)


def parametrized():
    layer = nn.BatchNorm2d(8)
    nn.utils.parametrize.register_parametrization(layer, "weight", Positive())
    return layer


OF_ONES_OWN = {
    "a scale of 1 + weight": lambda: Computed(lambda w: 1 + w, lambda b: b),
    "a shift of 1 + bias": lambda: Computed(lambda w: w, lambda b: b + 1),
    "a sigmoid of the weight": lambda: Computed(torch.sigmoid, lambda b: b),
    "a parametrized scale": parametrized,
}


@pytest.mark.parametrize("name", OF_ONES_OWN)
def test_a_batch_norm_that_computes_its_scale_is_gated_at_its_output(name):
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.norm(self.conv(x)), conv=conv3(8, 8), norm=OF_ONES_OWN[name]())
    graph = trace(model, INPUT)
    assert graph.group("conv").gates == ("norm",)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


KERNELS = {
    "mirrored": lambda weight: weight.flip(-1),
    "turned": lambda weight: torch.rot90(weight, 1, (2, 3)),
    "its middle": lambda weight: F.pad(weight[:, :, 1:2, 1:2], (1, 1, 1, 1)),
    "quantised": lambda weight: weight + ((8 * weight).round() / 8 - weight).detach(),
    "sparse": lambda weight: torch.where(weight.abs() > 0.05, weight, 0.0),
    "masked": lambda weight: weight.masked_fill(weight < 0, 0),
    "resized": lambda weight: F.interpolate(weight, size=(3, 3), mode="bilinear"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_channels_of_a_kernel_are_followed_through_what_is_made_of_its_pixels(name):
    torch.manual_seed(0)
    model = Unusual(
        lambda self, x: self.other(F.conv2d(x, KERNELS[name](self.layer.weight), padding=1)),
        layer=conv3(8, 8),
        other=conv3(8, 8),
    )
    graph = trace(model, INPUT)
    assert graph.group("conv1").prunable
    assert graph.group("layer").resizable
    assert proved(model, graph) == graph
    check_costs(model, graph)


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_counted_resized_and_masked(name):
    torch.manual_seed(0)
    operation, out = KNOWN[name]
    model = Unusual(operation, out, **layers())
    graph = trace(model, INPUT, "all")
    (segment,) = next(axis.segments for axis in graph.axes if (axis.module, axis.role) == ("conv1", "writes"))
    assert graph.group(segment.group).resizable
    assert proved(model, graph) == graph
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED


def test_channels_of_which_a_number_is_taken_can_lose_some_but_not_get_more():
    """PyTorch leaves out a slice that takes all there is, so that no graph tells of the number."""
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.by_end(x), 16, **layers())
    traced = trace(model, INPUT)
    refuted = refuted_groups(model, traced)
    assert refuted.frozen == {}
    assert set(refuted.no_wider) == {"conv1", "by_end.eight"}
    graph = refuted.corrected(traced)
    assert graph.group("conv1").prunable
    assert graph.expanded(1.5) == {**graph.widths(), "conv2": 9}
    with pytest.raises(UserError, match="channel group 'conv1' must not be wider than 8"):
        graph.cost({**graph.widths(), "conv1": 9})
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


def check_costs(model, graph):
    """At the traced widths, at one gate a group and at half of them."""
    for share in (1.0, 0.5, 0.0):
        widths = {
            g.name: max(1, int(g.gate_count * share)) * g.blocks if g.resizable else g.width for g in graph.groups
        }
        resized = resize(model, graph, widths)
        assert resized(torch.randn(2, *INPUT)).isfinite().all()
        assert graph.cost(widths) == counted(resized, INPUT)


@pytest.mark.parametrize("operation", [aliased, aliased_view, augmented], ids=["same tensor", "view", "y += 1"])
def test_who_reads_changed_memory_by_another_name_reads_the_change(operation):
    model = Unusual(operation)
    graph = trace(model, INPUT)
    assert not graph.group("conv1").prunable
    assert graph.group("conv1").resizable
    assert proved(model, graph) == graph


def test_layers_that_share_a_parameter_keep_their_widths():
    model = Unusual(lambda self, x: self.second(self.first(x)), first=conv3(8, 8), second=conv3(8, 8))
    model.second.weight = model.first.weight
    graph = trace(model, INPUT)
    assert "shares a parameter" in graph.group("conv1").reason
    check_costs(model, graph)
    resized = resize(model, graph, {**graph.widths(), "conv2": 3})
    assert resized.second.weight is resized.first.weight


def test_a_layer_of_two_names_is_one_layer():
    model = Unusual(lambda self, x: self.again(self.once(x)), once=conv3(8, 8))
    model.again = model.once
    graph = trace(model, INPUT)
    assert graph.members("conv1")[-3:] == [("once", "writes"), ("once", "reads"), ("conv2", "reads")]
    check_costs(model, graph)


def test_a_spectral_norm_depends_on_all_of_a_weight():
    model = Unusual(lambda self, x: self.layer(x), layer=torch.nn.utils.parametrizations.spectral_norm(conv3(8, 8)))
    graph = trace(model, INPUT)
    assert not graph.group("conv1").resizable
    assert "parametrizations.weight.original is read outside its layer" in graph.group("conv1").reason
    check_costs(model, graph)


def test_a_hook_on_a_block_is_part_of_the_network():
    model = Unusual(lambda self, x: self.block(x), block=chain(conv=conv3(8, 8)))
    model.block.register_forward_hook(lambda module, inputs, output: output + 1)
    group = trace(model, INPUT).group("block.conv")
    assert group.gates == ("block",)
    check_costs(model, proved(model, trace(model, INPUT)))


def test_a_parameter_on_the_channels_of_two_readers_is_resized_once():
    torch.manual_seed(0)
    model = Unusual(PARAMETERS["demodulated"], layer=conv3(8, 8))
    graph = trace(model, INPUT)
    assert graph.group("layer").prunable
    assert proved(model, graph) == graph
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


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


class Pooled(nn.Module):
    """A generalised mean; its exponent is called as the rate of a dropout is."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), 2).pow(1 / self.p)


def test_a_number_that_is_called_like_a_rate_of_dropout_stays_as_it_is():
    model = Unusual(lambda self, x: self.pooled(x), pooled=Pooled(3.0))
    graph = trace(model, INPUT)
    assert graph.group("conv1").gates == ("pooled",)
    assert proved(model, graph) == graph


BY_WIDTH = {
    "from half of the channels": lambda self, x: x.tanh() if x.shape[1] > 4 else F.relu(x),
    "from two channels": lambda self, x: x.tanh() if x.shape[1] > 1 else F.relu(x),
    "at all of the channels": lambda self, x: x.tanh() if x.shape[1] == 8 else F.relu(x),
}


@pytest.mark.parametrize("name", BY_WIDTH)
def test_what_does_something_else_from_some_width_on_is_not_pruned(name):
    model = Unusual(BY_WIDTH[name])
    graph = proved(model, trace(model, INPUT))
    assert "masked and removed channels differ" in graph.group("conv1").reason
    assert graph.group("conv1").reason.endswith(" (behind conv1)")
    assert graph.group("conv2").prunable


def test_a_reason_without_a_line_of_the_users_own_names_a_layer():
    model = nn.Sequential(conv3(2, 8), nn.Flatten(), nn.Unflatten(1, (8, *INPUT[1:])), conv3(8, 6), head(6))
    graph = proved(model, trace(model, INPUT))
    assert graph.group("0").reason.startswith("resized, the network fails: ")
    assert graph.group("0").reason.endswith(" (behind 0)")
    assert graph.group("3").prunable


def test_a_network_that_returns_zeros_with_few_channels_is_proved():
    model = nn.Sequential(conv3(2, 8), nn.ReLU(), conv3(8, 6), nn.ReLU(), head(6))
    nn.init.zeros_(model[-1].fc.bias)
    model[-1].fc.bias.requires_grad_(False)
    model.append(nn.ReLU())
    graph = trace(model, INPUT)
    with torch.no_grad():
        model[2].weight.neg_().clamp_(max=-0.1)
    assert proved(model, graph) == graph


def test_operators_of_the_network_itself_are_layers_of_their_own():
    """Two normalisations without weights are not one layer, although no module holds either."""
    normal = functools.partial(F.batch_norm, running_mean=None, running_var=None, training=True)
    model = Unusual(
        lambda self, x: self.one(normal(self.few(x))) + self.other(normal(self.many(x))),
        few=conv3(8, 4), many=conv3(8, 5), one=conv3(4, 8), other=conv3(5, 8),
    )  # fmt: skip
    graph = trace(model, INPUT)
    for name in ("few", "many"):
        assert graph.group(name).resizable
        assert "cannot be gated: <batch_norm" in graph.group(name).reason
    assert "" not in [axis.module for axis in graph.axes]


def test_a_network_that_cannot_learn_is_refused():
    model = Unusual(lambda self, x: x)
    model.forward = torch.no_grad()(model.forward)
    with pytest.raises(UserError, match="^Unusual cannot be trained: what it returns has no gradient$"):
        proved(model, trace(model, INPUT))


PARAMETERS = {
    "decoder": lambda self, x: F.conv_transpose2d(F.relu(self.encoder(x)), self.encoder.weight, padding=1),
    "dilated": lambda self, x: self.layer(x) + F.conv2d(x, self.layer.weight, padding=2, dilation=2),
    "norm of the weight": lambda self, x: self.layer(x) / self.layer.weight.norm(),
    "demodulated": lambda self, x: (
        self.layer(x) * torch.rsqrt((self.layer.weight**2).sum((1, 2, 3)) + 1e-8).view(1, -1, 1, 1)
    ),
    "a scale of another branch": lambda self, x: self.norm(self.layer(x)) + x * self.norm.weight.view(1, -1, 1, 1),
    "orthogonality": lambda self, x: (
        self.layer(x) + 0 * (self.layer.weight.flatten(1) @ self.layer.weight.flatten(1).t()).sum()
    ),
}


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_read_outside_its_layer_is_never_silently_wrong(name, policy):
    layer, encoder = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 4, 3, padding=1)
    model = Unusual(PARAMETERS[name], layer=layer, encoder=encoder, norm=nn.BatchNorm2d(8))
    graph = proved(model, trace(model, INPUT, policy))
    assert graph.group("conv2").prunable
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


def test_a_layer_that_is_not_registered_is_a_constant():
    hidden = [conv3(8, 8)]
    graph = trace(Unusual(lambda self, x: hidden[0](x)), INPUT)
    assert not graph.group("conv1").resizable
    assert "test_unusual.py, line" in graph.group("conv1").reason


@pytest.mark.parametrize("gain", [True, False])
def test_of_a_weight_that_is_normalised_the_outputs_are_prunable(gain):
    class Standardised(nn.Conv2d):
        def forward(self, x):
            rows = self.weight.reshape(1, self.out_channels, -1)
            gains = self.gain * 0.5 if gain else None
            weight = F.batch_norm(rows, None, None, weight=gains, training=True, momentum=0.0)
            return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=1)

    layer = Standardised(8, 8, 3)
    layer.gain = nn.Parameter(torch.rand(8) + 0.5)
    normed = torch.nn.utils.parametrizations.weight_norm(conv3(8, 8))
    for standardised in (layer, normed):
        model = Unusual(lambda self, x: self.other(self.layer(x)), layer=standardised, other=conv3(8, 8))
        graph = trace(model, INPUT)
        assert "computed with all of its inputs" in graph.group("conv1").reason
        assert graph.group("layer").prunable
        assert proved(model, graph) == graph
        check_costs(model, graph)


def test_a_layer_that_is_never_called_is_counted():
    model = Unusual(lambda self, x: x, unused=conv3(3, 3))
    assert trace(model, INPUT).cost().params == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "layer",
    [lambda: nn.LazyConv2d(8, 3, padding=1), lambda: torch.nn.utils.weight_norm(conv3(8, 8))],
    ids=["lazy", "weight norm by a hook"],
)
def test_a_model_that_cannot_be_copied_is_refused_in_one_line(layer):
    with pytest.raises(UserError, match="Unusual cannot be copied") as error:
        trace(Unusual(lambda self, x: self.layer(x), layer=layer()), INPUT)
    assert "\n" not in str(error.value)
    assert "copy.py" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused_in_one_line():
    right = "is a TorchScript module, whose operators are not seen; give the nn.Module that it was made from"
    scripted = torch.jit.script(conv3(8, 8))
    with pytest.raises(UserError, match=f"^Unusual cannot be copied: its layer layer {right}$"):
        trace(Unusual(lambda self, x: self.layer(x), layer=scripted), INPUT)
    traced = torch.jit.trace(conv3(2, 8), torch.zeros(1, *INPUT))
    with pytest.raises(UserError, match=f" cannot be copied: it {right}$"):
        trace(traced, INPUT)


def test_several_outputs_keep_their_widths():
    class Several(Unusual):
        def forward(self, x):
            x = self.conv1(x)
            return {"features": x, "classes": (self.head(self.conv2(x)),)}

    graph = trace(Several(None), INPUT)
    assert "output" in graph.group("conv1").reason
    assert graph.group("conv2").prunable
