"""Network Slimming finds the channels that cannot matter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import Refuted, trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split
from pfs_core.errors import UserError
from pfs_core.methods.context import SearchContext
from pfs_core.methods.network_slimming.config import NetworkSlimmingConfig
from pfs_core.methods.network_slimming.search import check_scales, penalty, run, scales, start_scales
from pfs_core.runtime.progress import ignore
from pfs_core.training.checkpoints import Checkpoints

DEAD = torch.tensor([1, 4, 5, 9])


class Planted(nn.Module):
    """Two convolutions; the second one never hears some channels of the first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)
        with torch.no_grad():
            self.second.weight[:, DEAD] = 0
        self.second.weight.register_hook(lambda grad: grad.index_fill(1, DEAD, 0.0))

    def forward(self, images):
        hidden = torch.relu(self.norm(self.first(images)))
        return self.head(torch.relu(self.second_norm(self.second(hidden))).mean((2, 3)))


def test_channels_that_cannot_matter_go_first(digits, tmp_path):
    torch.manual_seed(0)
    model = Planted()
    graph = trace(model, (1, 8, 8))
    config = NetworkSlimmingConfig(epochs=12, sparsity=0.003, precision="fp32")
    with Checkpoints(tmp_path / "out", {}) as checkpoints:
        found = run(
            SearchContext(
                spec=ModelSpec(name="planted", input_shape=(1, 8, 8)),
                model=model,
                graph=graph,
                refuted=Refuted(),
                widths=graph.widths(),
                budget=Budget(target=0.7),
                data=load_split(digits),
                config=config,
                seed=0,
                record=ignore,
                checkpoints=checkpoints,
            )
        )
    gates = found.gates["first"]
    alive = torch.ones(12, dtype=torch.bool).index_fill(0, DEAD, False)
    assert gates[~alive].max() < 0.05
    assert gates[alive].min() > 2 * gates[~alive].max()


def test_the_penalty_pulls_at_the_scales_of_prunable_groups_alone():
    torch.manual_seed(0)
    model = Planted()
    graph = trace(model, (1, 8, 8))
    start_scales(model, graph, 0.5)
    assert model.norm.weight.tolist() == [0.5] * 12
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        model.norm.weight[3] = -0.25
    penalty(model, graph, 0.1)()
    expected = torch.full((12,), 0.1).index_fill(0, torch.tensor([3]), -0.1)
    assert torch.equal(model.norm.weight.grad, expected)
    assert all(not p.grad.any() for name, p in model.named_parameters() if "norm.weight" not in name)
    assert scales(model, graph)["first"][3] == 0.25


class SplitAndAdd(nn.Module):
    """As in Res2Net: channels in two halves, the second one convolved with the first added to it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        first, second = torch.relu(self.norm(self.conv(images))).split(4, 1)
        first = torch.relu(self.inner_norm(self.inner(first))) + second
        return self.head(torch.cat([first, second], 1).mean((2, 3)))


def test_a_gate_whose_scales_are_in_several_layers_has_their_mean():
    model = SplitAndAdd()
    graph = trace(model, (1, 8, 8))
    (group,) = graph.prunable()
    assert (group.per_gate, set(group.gates)) == (2, {"norm", "inner_norm"})
    check_scales(model, graph)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([1.0, 2, 3, 4, 5, -6, 7, 8]))
        model.inner_norm.weight.copy_(torch.tensor([10.0, 20, 30, 40]))
    assert scales(model, graph)["conv"].tolist() == [6.5, 12.0, 17.5, 23.0]


class Shifted(nn.BatchNorm2d):
    """A BatchNorm whose scale is not its weight."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, 1 + self.weight, self.bias, self.training)


@pytest.mark.parametrize("layer", [nn.ReLU, lambda: Shifted(8)], ids=["none", "computed"])
def test_a_network_without_scales_is_refused(layer):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), layer(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    graph = trace(model, (1, 8, 8))
    with pytest.raises(UserError, match="none follows the channels of '0'; choose another search.method"):
        check_scales(model, graph)


class TwoNorms(nn.Module):
    """The channels of two convolutions are added, each behind a BatchNorm; a branch may be left out of a step."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)
        self.leave_out = False

    def forward(self, images):
        out = self.first_norm(self.first(images))
        if not self.leave_out:
            out = out + self.second_norm(self.second(images))
        return self.head(torch.relu(out).mean((2, 3)))


@pytest.mark.parametrize("frozen", [["second_norm"], ["first_norm", "second_norm"]], ids=["one", "all"])
def test_scales_that_are_not_trained_are_refused(frozen):
    model = TwoNorms()
    for name in frozen:
        model.get_submodule(name).weight.requires_grad_(False)
    with pytest.raises(UserError, match=r"behind the channels of 'first' is frozen \(requires_grad is False\)"):
        check_scales(model, trace(model, (1, 8, 8), "all"))


def test_a_scale_that_a_step_leaves_out_gets_no_penalty_in_it():
    model = TwoNorms()
    graph = trace(model, (1, 8, 8), "all")
    check_scales(model, graph)
    add_gradients = penalty(model, graph, 0.1)
    model.leave_out = True
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    before = model.first_norm.weight.grad.clone()
    add_gradients()
    torch.testing.assert_close(model.first_norm.weight.grad, before + 0.1)
    assert model.second_norm.weight.grad is None
