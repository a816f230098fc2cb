"""Networks whose code does not run in channels_last are searched and trained in the contiguous format."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from pfs_core.channels import trace
from pfs_core.config.spec import Budget
from pfs_core.config.stages import RetrainConfig
from pfs_core.errors import UserError
from pfs_core.methods.amc.config import AmcConfig
from pfs_core.methods.amc.search import AccuracyReward
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.pfs.history import SearchHistory
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.pfs.search import learn_gates
from pfs_core.runtime.progress import ignore
from pfs_core.training.fit import fit
from pfs_core.training.memory_layout import layout_for, with_layout
from pfs_core.training.rate import training_rate

SHAPE = (1, 8, 8)


class Digits(nn.Module):
    """Two convolutions, the second on maps of 2x2 pixels, and what a subclass makes of them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 4)
        return self.fc(self.flat(self.bn2(self.conv2(x)).relu()))

    def flat(self, x):
        return x.flatten(1)


class Viewed(Digits):
    """``view`` as in the oldest tutorials."""

    def flat(self, x):
        return x.view(x.size(0), -1)


class Standardised(nn.Conv2d):
    """Weight standardisation as its authors published it."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.view(weight.size(0), -1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class OfStandardised(Digits):
    def __init__(self):
        super().__init__()
        self.conv2 = Standardised(8, 12, 3, padding=1, bias=False)


class Filtered(Digits):
    """A filter with complex numbers, as in GFNet, and a parameter of five dimensions."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(12, 2, 2, 2))
        self.scale = nn.Parameter(torch.ones(1, 1, 1, 1, 1))

    def flat(self, x):
        x = torch.fft.rfft2(x.float()) * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(x, s=(2, 2)).flatten(1) * self.scale.flatten()


class Broken(Digits):
    def flat(self, x):
        if self.training and not x.is_meta:
            raise RuntimeError("only on Tuesdays")
        return x.flatten(1)


ODD = [Viewed, OfStandardised, Filtered]


@pytest.fixture
def few(digits_data):
    """The first rows of every part."""
    return replace(digits_data, parts={part: index[:64] for part, index in digits_data.parts.items()})


@pytest.mark.parametrize(("network", "layout"), [
    (Digits, torch.channels_last), (Filtered, torch.channels_last),
    (Viewed, torch.contiguous_format), (OfStandardised, torch.contiguous_format),
])  # fmt: skip
def test_a_network_takes_channels_last_where_its_code_allows_that(network, layout):
    assert layout_for(network(), SHAPE, "fp32") == layout


def test_only_the_weights_of_convolutions_are_laid_out_anew():
    model = with_layout(Filtered(), torch.channels_last)
    assert model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.conv2.weight.is_contiguous()
    assert model.filter.is_contiguous()
    assert with_layout(model, torch.contiguous_format).conv2.weight.is_contiguous()


def test_trying_changes_neither_the_network_nor_random_numbers():
    model = nn.Sequential(Viewed(), nn.Dropout(0.5))
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    layout_for(model, SHAPE, "fp32")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("network", ODD)
def test_a_search_runs(network, few):
    model = network()
    graph, config = trace(model, SHAPE), PfsConfig(precision="fp32", batch_size=32, epochs=1, lr=0.5)
    gated = GatedNetwork(model, graph, "fp32", config.lr)
    history = SearchHistory(graph, graph.widths(), Budget(target=0.9), 0.9, config)
    learn_gates(gated, history, few, config, 0, ignore)
    gated.shrink()
    assert (gated.gates.values != 1).any()
    assert gated(torch.randn(3, *SHAPE)).shape == (3, 10)


@pytest.mark.parametrize("network", ODD)
def test_a_training_runs_and_its_rate_is_measured(network, few):
    config = RetrainConfig(epochs=2, batch_size=32, precision="fp32")
    assert training_rate(network(), SHAPE, 10, config, torch.device("cpu")).images > 0
    rows = fit(network(), "training", few, config, 2, 0, ignore).history
    assert rows[1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("network", ODD)
def test_a_cut_network_is_judged_by_amc(network, few):
    model = network()
    graph = trace(model, SHAPE)
    reward = AccuracyReward(model, graph, few, AmcConfig(precision="fp32"))
    assert 0 <= reward(graph.widths() | {"conv1": 3}) <= 1


def test_what_a_network_raises_is_one_line():
    config = RetrainConfig(epochs=1, precision="fp32")
    with pytest.raises(UserError, match=r"^Broken cannot be trained in fp32: only on Tuesdays \(test_memory"):
        training_rate(Broken(), SHAPE, 10, config, torch.device("cpu"))


def test_a_network_that_fails_in_bf16_alone_is_told_of_fp32():
    class Scattered(Digits):
        def flat(self, x):
            out = torch.zeros(len(x), 48)
            out[:, torch.arange(48).flip(0)] = self.conv2(torch.zeros(len(x), 8, 2, 2)).flatten(1)
            return out

    assert layout_for(Scattered(), SHAPE, "fp32") == torch.channels_last
    with pytest.raises(UserError, match=r"in bf16: .*; try search\.precision=fp32 and retrain\.precision=fp32$"):
        layout_for(Scattered(), SHAPE, "bf16")
