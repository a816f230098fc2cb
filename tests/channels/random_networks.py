"""Random networks for 3x16x16 images and 5 classes: a row of blocks of any kind, and a head."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

INPUT = (3, 16, 16)
CLASSES = 5
ACTIVATIONS = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish, "leaky": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
}  # fmt: skip


def conv_bn(inputs, outputs, act, kernel=3, **options):
    """Convolution, BN, activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


def conv_bias(inputs, outputs, act):
    """A convolution without BN."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), act())


def separable(inputs, outputs, act):
    return nn.Sequential(conv_bn(inputs, inputs, act, groups=inputs), conv_bn(inputs, outputs, act, kernel=1))


def biased_separable(inputs, outputs, act):
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
    return nn.Sequential(depthwise, act(), nn.Conv2d(inputs, outputs, 1), act())


def multiplied(inputs, outputs, act):
    return nn.Sequential(conv_bn(inputs, 2 * inputs, act, groups=inputs), conv_bn(2 * inputs, outputs, act, kernel=1))


def grouped(inputs, outputs, act):
    return nn.Sequential(conv_bn(inputs, 8, act, kernel=1), conv_bn(8, 12, act, groups=4), conv_bn(12, outputs, act))


def regrouped(inputs, outputs, act):
    """Two numbers of groups on the same channels."""
    return nn.Sequential(
        conv_bn(inputs, 12, act, kernel=1),
        conv_bn(12, 12, act, groups=2),
        conv_bn(12, 8, act, groups=4),
        conv_bn(8, outputs, act, kernel=1),
    )


def transposed(inputs, outputs, act):
    up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Sequential(up, nn.BatchNorm2d(outputs), act(), nn.AvgPool2d(2))


def group_normed(inputs, outputs, act):
    return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.GroupNorm(2, 8), act(), conv_bn(8, outputs, act))


def parametric(inputs, outputs, act):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs), conv_bn(outputs, outputs, act, kernel=1))


def pooled(inputs, outputs, act):
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn(inputs, outputs, act))


class Residual(nn.Module):
    """Identity or projection beside two convolutions."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, 6, act), nn.Conv2d(6, outputs, 1), nn.BatchNorm2d(outputs))
        self.side = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.act = act()

    def forward(self, x):
        return self.act(self.body(x) + self.side(x))


class Dense(nn.Module):
    """The input and what is computed from it, side by side."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.first = conv_bn(inputs, 4, act)
        self.norm, self.act = nn.BatchNorm2d(inputs + 4), act()
        self.second = nn.Conv2d(inputs + 4, outputs, 3, padding=1, bias=False)

    def forward(self, x):
        x = torch.cat([x, self.first(x)], 1)
        return self.second(self.act(self.norm(x)))


class Branches(nn.Module):
    """Two branches and a pooled copy, concatenated."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.a, self.b = conv_bn(inputs, 5, act, kernel=1), conv_bias(inputs, 3, act)
        self.mix = conv_bn(8 + inputs, outputs, act, kernel=1)

    def forward(self, x):
        return self.mix(torch.cat((self.a(x), self.b(x), F.max_pool2d(x, 3, 1, 1)), dim=1))


class Squeezed(nn.Module):
    """Squeeze and excitation between an expansion and a projection, with convolutions."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.expand, self.depthwise = conv_bn(inputs, 10, act, kernel=1), conv_bn(10, 10, act, groups=10)
        self.fc1, self.fc2 = nn.Conv2d(10, 4, 1), nn.Conv2d(4, 10, 1)
        self.project = conv_bn(10, outputs, nn.Identity, kernel=1)
        self.identity = inputs == outputs

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        y = y * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.project(y) if self.identity else self.project(y)


class Excited(nn.Module):
    """Squeeze and excitation with linear layers and views."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv = conv_bn(inputs, outputs, act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(outputs, 3), nn.ReLU(), nn.Linear(3, outputs), nn.Sigmoid())

    def forward(self, x):
        x = self.conv(x)
        b, c, _, _ = x.size()
        y = self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1)
        return x * y.expand_as(x)


class Normed(nn.Module):
    """LayerNorm over channels and an MLP on the last dimension, as in ConvNeXt."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv = conv_bn(inputs, outputs, act)
        self.norm = nn.LayerNorm(outputs)
        self.mlp = nn.Sequential(nn.Linear(outputs, 9), nn.GELU(), nn.Linear(9, outputs))

    def forward(self, x):
        x = self.conv(x)
        return x + self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Shuffled(nn.Module):
    """Half of the channels go through a branch; then all are shuffled."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv = conv_bn(inputs, 8, act)
        self.branch = nn.Sequential(conv_bn(4, 5, act, kernel=1), conv_bn(5, 4, act))
        self.out = conv_bn(8, outputs, act)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, dim=1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        return self.out(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.first, self.shared = conv_bn(inputs, outputs, act), conv_bn(outputs, outputs, act)

    def forward(self, x):
        return self.shared(self.shared(self.first(x)))


class Enlarged(nn.Module):
    """Interpolation, spatial padding and slices."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv = conv_bn(inputs, outputs, act)

    def forward(self, x):
        x = F.interpolate(self.conv(x), scale_factor=2)
        return F.pad(x, (1, 1, 1, 1))[:, :, 1:-1:2, 1:-1:2]


class Joined(nn.Module):
    """Branches joined by a sum, a maximum and a mean."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.branches = nn.ModuleList(conv_bn(inputs, outputs, act, kernel=kernel) for kernel in (1, 3, 1, 3))

    def forward(self, x):
        a, b, c, d = (branch(x) for branch in self.branches)
        return torch.stack([sum([a, b]), torch.max(c, d)]).mean(0)


class Parted(nn.Module):
    """Channels split at numbers, each part through its own branch, then in thirds."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.first = conv_bn(inputs, 9, act)
        self.left, self.right = conv_bn(4, 6, act), conv_bn(5, 3, act)
        self.out = conv_bn(3, outputs, act)

    def forward(self, x):
        a, b = self.first(x).split([4, 5], 1)
        x = torch.cat([self.left(a), self.right(b)], 1)
        return self.out(sum(x.view(x.shape[0], 3, -1, *x.shape[2:]).unbind(1)))


class Gained(nn.Module):
    """A gain for all channels, one for each, and a clipped range."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.out = conv_bn(inputs, 7, act), conv_bn(7, outputs, act, kernel=1)
        self.gain, self.gains = nn.Parameter(torch.ones(())), nn.Parameter(torch.rand(7, 1, 1) + 0.5)

    def forward(self, x):
        return self.out(torch.clamp(self.conv(x) * self.gain, -3, 3) * self.gains)


class OverChannels(nn.Module):
    """A kernel over the row of channels, as in ECA."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.row = conv_bn(inputs, outputs, act), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        x = self.conv(x)
        weights = self.row(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(weights)


class Focused(nn.Module):
    """Pixels moved to channels, by slices and by an operator."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.out = conv_bn(inputs, 5, act), conv_bn(5 * 8, outputs, act)

    def forward(self, x):
        x = self.conv(x)
        slices = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return F.interpolate(self.out(torch.cat([*slices, F.pixel_unshuffle(x, 2)], 1)), scale_factor=2)


class Standardised(nn.Module):
    """A convolution whose weights are normalised over its inputs."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.rest = nn.Conv2d(inputs, 6, 3, padding=1), conv_bn(6, outputs, act)

    def forward(self, x):
        weight = self.conv.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return self.rest(F.conv2d(x, weight, self.conv.bias, padding=1))


class Blurred(nn.Module):
    """A fixed kernel of each channel, held in a buffer, and one that is made on the way."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv = conv_bn(inputs, outputs, act)
        self.kernel = nn.Buffer(torch.full((outputs, 1, 3, 3), 1 / 9))

    def forward(self, x):
        x = F.conv2d(self.conv(x), self.kernel, padding=1, groups=len(self.kernel))
        return F.conv2d(x, self.kernel[:1].expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1])


class Responding(nn.Module):
    """Each channel against the norm of all, as in ConvNeXt V2."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.out = conv_bn(inputs, 7, act), conv_bn(7, outputs, act, kernel=1)
        self.scale, self.shift = nn.Parameter(torch.rand(1, 7, 1, 1)), nn.Parameter(torch.zeros(1, 7, 1, 1))

    def forward(self, x):
        x = self.conv(x)
        norm = x.norm(dim=(2, 3), keepdim=True)
        return self.out(x + self.shift + self.scale * x * (norm / (norm.mean(1, keepdim=True) + 1e-6)))


class Attending(nn.Module):
    """Attention between pixels, by products of channels, and a map of one channel over all of them."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.qkv = conv_bn(inputs, 8, act), nn.Conv2d(8, 24, 1)
        self.map, self.out = nn.Conv2d(8, 1, 1), conv_bn(8, outputs, act)

    def forward(self, x):
        x = F.avg_pool2d(self.conv(x), 4)
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        mixed = (v @ (q.transpose(1, 2) @ k).softmax(1)).view_as(x)
        return F.interpolate(self.out(mixed * torch.sigmoid(self.map(x)) + self.map(x)), scale_factor=4)


class Gathered(nn.Module):
    """Neighbouring channels that become one: beside depthwise ones of two outputs each, and by a shuffle of pixels."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.conv, self.out = conv_bn(inputs, 6, act), conv_bn(3, outputs, act)
        self.two_each, self.plain = nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.Conv2d(6, 12, 1)

    def forward(self, x):
        x = self.conv(x)
        return F.avg_pool2d(self.out(F.pixel_shuffle(self.two_each(x) + self.plain(x), 2)), 2)


class Selective(nn.Module):
    """Two branches, of which a softmax chooses for each channel, as in SK networks."""

    def __init__(self, inputs, outputs, act):
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(inputs, 6, act), conv_bn(inputs, 6, act, kernel=1)])
        self.hidden, self.choice = conv_bn(6, 4, act, kernel=1), nn.Conv2d(4, 12, 1)
        self.out = conv_bn(6, outputs, act)

    def forward(self, x):
        x = torch.stack([branch(x) for branch in self.branches], 1)
        choice = self.choice(self.hidden(x.sum(1).mean((2, 3), keepdim=True)))
        choice = choice.view(x.shape[0], 2, -1, 1, 1).softmax(1)
        return self.out((x * choice).sum(1))


class BatchNormAct(nn.BatchNorm2d):
    """A BatchNorm with an activation, by the function."""

    def forward(self, x):
        return F.silu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training))


class PaddedConv(nn.Conv2d):
    """A convolution that pads by itself, as far as its input needs it."""

    def forward(self, x):
        width = x.shape[-1]
        x = F.pad(x, (1, 1, 1, 1)) if width % 2 == 0 else F.pad(x, (1, 1, 1, 1), value=0.0)
        return F.conv2d(x, self.weight, self.bias)


def subclassed(inputs, outputs, act):
    return nn.Sequential(PaddedConv(inputs, outputs, 3, bias=False), BatchNormAct(outputs), act())


BLOCKS = (
    conv_bn, conv_bias, separable, biased_separable, multiplied, grouped, regrouped, transposed, group_normed,
    parametric, pooled, Residual, Dense, Branches, Squeezed, Excited, Normed, Shuffled, Twice, Enlarged, Joined,
    Parted, Gained, OverChannels, Focused, Standardised, Blurred, Responding, Attending, Gathered, Selective,
    subclassed,
)  # fmt: skip


def pooled_head(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def spatial_head(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, CLASSES))


def hidden_head(channels):
    hidden = (nn.Linear(channels, 11), nn.BatchNorm1d(11), nn.ReLU(), nn.Dropout(0.5), nn.Linear(11, 7), nn.ReLU())
    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), *hidden, nn.Linear(7, CLASSES))


HEADS = (pooled_head, spatial_head, hidden_head)


def network(description):
    """The network that ``(blocks, head)`` describes, a block being ``(kind, output channels, activation)``."""
    blocks, head = description
    layers, channels = [], INPUT[0]
    for kind, outputs, activation in blocks:
        layers.append(kind(channels, outputs, ACTIVATIONS[activation]))
        channels = outputs
    return nn.Sequential(*layers, head(channels))


blocks = st.tuples(st.sampled_from(BLOCKS), st.sampled_from([4, 6, 8]), st.sampled_from(sorted(ACTIVATIONS)))
descriptions = st.tuples(st.lists(blocks, min_size=1, max_size=5), st.sampled_from(HEADS))
