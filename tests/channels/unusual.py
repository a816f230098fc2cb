"""A network around an unusual operation, layers for such operations, and a check of what it costs."""

import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import resize
from tests.channels.counting import counted
from tests.channels.networks import INPUT, conv3, head


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


def check_costs(model, graph):
    """At the traced widths, at one gate a group and at half of them."""
    for share in (1.0, 0.5, 0.0):
        widths = {
            g.name: max(1, int(g.gate_count * share)) * g.per_gate if g.resizable else g.width for g in graph.groups
        }
        resized = resize(model, graph, widths)
        assert resized(torch.randn(2, *INPUT)).isfinite().all()
        assert graph.cost(widths) == counted(resized, INPUT)


class Numbered(nn.Module):
    """Splits its input by numbers that it has as attributes, and takes so many channels of what it computes."""

    def __init__(self, kind):
        super().__init__()
        self.others = [torch.ones(2), torch.ones(2)]
        self.kind, self.sizes, self.width, self.left, self.right, self.outputs = kind, [2, 6], 4, 6, 2, 16
        self.small, self.big, self.four, self.other_four = conv3(2, 2), conv3(6, 6), conv3(4, 4), conv3(4, 4)
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
        if self.kind == "pair":
            a, b = x.split((self.width, self.width), 1)
            return torch.cat([self.four(a), b], 1)
        if self.kind == "joined":
            a, b = torch.cat([self.four(x[:, : self.width]), self.other_four(x[:, self.width :])], 1).split(
                [self.width] * 2, 1
            )
            return torch.cat([b, a], 1)
        return torch.cat([x, self.eight(x)], 1)[:, : self.outputs]


class Blur(nn.Module):
    """A fixed kernel of each channel, whose number is an attribute."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.kernel = nn.Buffer(torch.rand(channels, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.kernel, padding=1, groups=self.channels)


class Sized(nn.Module):
    """Views its input by numbers that it has as attributes, and as many channels as it has are convolved."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.dim, self.pairs, self.flat = kind, 8, 4, 8 * 64
        self.kernel = nn.Parameter(torch.rand(8, 1, 3, 3))

    def forward(self, x):
        if self.kind == "width":
            return x.flatten(2).view(-1, self.dim, 4, 16)
        if self.kind == "block":
            return x.view(x.shape[0], 2, self.pairs, 8, 8).mean(1)
        if self.kind == "features":
            return x.reshape(-1, self.flat).view(x.shape)
        return F.conv2d(x, self.kernel, padding=1, groups=self.dim)


class Subclass(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the function with its own tensors, and an activation."""

    def forward(self, x):
        weights = self.running_mean, self.running_var, self.weight, self.bias
        return F.silu(F.batch_norm(x, *weights, self.training, self.momentum, self.eps))


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
        "by_pair": Numbered("pair"),
        "by_joined": Numbered("joined"),
        "by_end": Numbered("end"),
        "by_width": Sized("width"),
        "by_block": Sized("block"),
        "by_features": Sized("features"),
        "by_groups": Sized("groups"),
        "matrix": nn.Parameter(torch.randn(8, 8)),
        "map_norm": nn.LayerNorm([8, 8]),
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
        "two_each": conv3(8, 16, groups=8),
        "up": nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
        "grouped": nn.ConvTranspose2d(8, 8, 2, 2, groups=2),
        "to_eight": nn.Linear(8 * 64, 8),
        "to_rows": nn.Linear(8 * 8, 8),
    }
