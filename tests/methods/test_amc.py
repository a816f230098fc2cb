"""AMC's agent learns where the best allocation is, and its judge measures what a cut network does."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import update_bn

from pfs_core.channels import slice_weights, trace
from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split
from pfs_core.data.augment import Normalise
from pfs_core.methods.amc.config import AmcConfig
from pfs_core.methods.amc.ddpg import Agent
from pfs_core.methods.amc.environment import PruningEnv
from pfs_core.methods.amc.search import AccuracyReward, input_norms, learn
from pfs_core.models import build_model


def three_groups():
    def block(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 12), *block(12, 12), *block(12, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)
    )


VALUE = {"0": 0.1, "3": 0.2, "6": 0.7}
"""What a group is worth: the last one most, so that an even allocation is far from the best."""


def reward(widths):
    return sum(worth * (widths[name] / 12) ** 0.5 for name, worth in VALUE.items())


def a_walk():
    model = three_groups()
    graph = trace(model, (1, 8, 8))
    return PruningEnv(model, graph, graph.widths(), Budget(target=0.4), 0.2), graph


def test_the_agent_learns_what_chance_does_not_find():
    """Over 3 seeds: what it does in the end earns more than random policies, and nearly what enumeration finds."""
    recipe = AmcConfig(episodes=140, warmup_episodes=40, lowest=0.2)
    at_random, in_the_end = [], []
    for seed in range(3):
        env, graph = a_walk()
        best, history = learn(env, reward, recipe, seed, lambda row: None)
        earned = np.array([row["reward"] for row in history])
        assert best["reward"] == pytest.approx(reward(env.filled(best["widths"]))) == earned.max()
        at_random.append(earned[:40])
        in_the_end.append(earned[-20:].mean())
    limit = Budget(target=0.4).limit(graph.cost().macs)
    allowed = [dict(zip(VALUE, widths, strict=True)) for widths in product(range(3, 13), repeat=3)]
    known = max(reward(widths) for widths in allowed if graph.cost(graph.widths() | widths).macs <= limit)
    chance = np.mean(at_random)
    assert chance + np.std(at_random) < np.mean(in_the_end) <= known
    assert all(end > found.mean() for end, found in zip(in_the_end, at_random, strict=True))
    assert known - np.mean(in_the_end) < 0.1 * (known - chance)


@given(st.lists(st.integers(3, 12), min_size=3, max_size=3))
def test_what_a_choice_leaves_of_the_budget_goes_to_all_in_proportion(wanted):
    env, graph = a_walk()
    chosen = {}
    for name, width in zip(VALUE, wanted, strict=True):
        chosen[name] = env.width(chosen, width / 12)
    filled = env.filled(chosen)
    assert all(filled[name] >= width for name, width in chosen.items())
    grown = {name: filled[name] / width for name, width in chosen.items() if filled[name] < 12}
    for name, other in product(grown, repeat=2):  # equal but for whole channels
        assert grown[name] * chosen[name] <= grown[other] * chosen[name] + chosen[name] / chosen[other] + 1
    limit = Budget(target=0.4).limit(graph.cost().macs)
    assert graph.cost(graph.widths() | filled).macs <= limit


def test_actions_stay_in_their_range():
    random = torch.Generator().manual_seed(0)
    agent = Agent(10, 0.2, 1e-4, 1e-3, 100, random)
    state = [0.5] * 10
    noisy = [agent.act(state, 0.5) for _ in range(200)]
    assert 0.2 <= min(noisy) < max(noisy) <= 1
    assert np.std(noisy) > 0.1
    assert agent.act(state, 0.0) == agent.act(state, 0.0)


def test_every_step_is_remembered_with_the_reward_of_its_episode():
    agent = Agent(2, 0.2, 1e-4, 1e-3, 5, torch.Generator().manual_seed(0))
    agent.remember([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], [0.7, 0.8, 0.9], 0.25)
    expected = [
        [0.1, 0.2, 0.7, 0.25, 0.3, 0.4, 0.0],
        [0.3, 0.4, 0.8, 0.25, 0.5, 0.6, 0.0],
        [0.5, 0.6, 0.9, 0.25, 0.5, 0.6, 1.0],
    ]
    torch.testing.assert_close(agent._steps[:3], torch.tensor(expected))
    agent.remember([[0.0, 0.0]] * 3, [1.0] * 3, 0.5)
    assert (agent._filled, agent._next) == (5, 1)  # the oldest step is gone


def test_the_judge_measures_the_cut_network(digits):
    torch.manual_seed(0)
    data = load_split(digits)
    model = build_model(ModelSpec(name="resnet20", input_shape=(1, 8, 8), kwargs={"width": 4}))
    graph = trace(model, (1, 8, 8))
    judge = AccuracyReward(model, graph, data, AmcConfig(recalibrate=0, precision="fp32"))
    widths = {group.name: max(1, group.width // 2) for group in graph.prunable()}
    norms = input_norms(model, graph)
    kept = {name: norms[name].topk(width).indices.sort().values for name, width in widths.items()}
    cut = slice_weights(model, graph, kept).eval()
    images = data.part("validation")
    normalise = Normalise(data.info, data.device, torch.contiguous_format)
    with torch.no_grad():
        right = torch.cat([cut(normalise(batch)).argmax(1) for batch in images.in_order(500)]) == images.labels
    assert judge(widths) == pytest.approx(right.double().mean().item())
    assert judge.images == len(images.labels)


def test_the_judge_takes_statistics_and_rewards_from_the_images_that_it_says(digits, monkeypatch):
    torch.manual_seed(0)
    data = load_split(digits)
    model = build_model(ModelSpec(name="resnet20", input_shape=(1, 8, 8), kwargs={"width": 4}))
    graph = trace(model, (1, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    judge = AccuracyReward(model, graph, data, AmcConfig(recalibrate=64, reward_rows=30, precision="fp32"))
    widths = {group.name: group.width for group in graph.prunable()}
    seen = judge(widths)
    assert judge.images == 94
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    calibrated = copy.deepcopy(model)
    normalise = Normalise(data.info, data.device, torch.contiguous_format)
    update_bn([normalise(torch.cat(list(data.sample("train", 64).in_order(500))))], calibrated)
    judging = data.sample("validation", 30)
    with torch.no_grad():
        predictions = calibrated.eval()(normalise(next(judging.in_order(500)))).argmax(1)
    assert seen == pytest.approx((predictions == judging.labels).double().mean().item())


def test_images_for_the_statistics_weigh_the_same(digits):
    """512 are more than are evaluated at once, and 12 of them would weigh as much as the other 500."""
    data = load_split(digits)
    model = three_groups()
    judge = AccuracyReward(model, trace(model, (1, 8, 8)), data, AmcConfig(recalibrate=512))
    assert [len(batch) for batch in judge._calibration] == [256, 256]


def test_a_reward_draws_nothing_although_a_layer_of_the_network_is_random(digits):
    torch.manual_seed(0)
    data = load_split(digits)
    model = nn.Sequential(nn.Dropout2d(0.5), *three_groups())
    judge = AccuracyReward(model, trace(model, (1, 8, 8)), data, AmcConfig(recalibrate=64))
    widths = dict.fromkeys(judge.norms, 8)
    before = torch.get_rng_state()
    assert len({judge(widths) for _ in range(3)}) == 1
    assert torch.equal(before, torch.get_rng_state())


def test_a_sample_is_of_all_classes_whatever_order_the_rows_are_in(digits):
    """Rows sorted by class, as in one folder of images per class."""
    data = load_split(digits)
    rows = data.parts["train"]
    data.parts["train"] = rows[np.argsort(data.labels[rows].numpy(), kind="stable")]
    sample = data.sample("train", 200)
    counts = sample.labels.bincount(minlength=10)
    assert len(sample.labels) == 200
    assert counts.min() >= 8
    assert torch.equal(sample.labels, data.sample("train", 200).labels)
    assert len(data.sample("validation", 10**6).labels) == len(data.parts["validation"])


class NoLayers(nn.Module):
    """Kernels that are no layer's weight: put together, in a buffer, and of rows with gains of their inputs."""

    def __init__(self):
        super().__init__()
        self.square, self.row = nn.Parameter(torch.randn(8, 1, 3, 3)), nn.Parameter(torch.randn(8, 1, 1, 3))
        self.kernel = nn.Buffer(torch.randn(6, 4, 3, 3))
        self.gains = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.matrix, self.inputs = nn.Parameter(torch.randn(10, 6)), nn.Parameter(torch.randn(6))
        self.norm, self.second_norm = nn.BatchNorm2d(8), nn.BatchNorm2d(6)

    def forward(self, x):
        x = torch.relu(self.norm(F.conv2d(x, self.square + F.pad(self.row, (0, 0, 1, 1)))))
        x = torch.relu(self.second_norm(F.conv2d(x, self.kernel * self.gains, groups=2)))
        return F.linear(x.mean((2, 3)), self.matrix * self.inputs)


def test_a_network_whose_kernels_are_no_layers_weights_is_searched():
    torch.manual_seed(0)
    model = NoLayers()
    graph = trace(model, (1, 8, 8))
    assert len(graph.prunable()) == 2
    env = PruningEnv(model, graph, graph.widths(), Budget(target=0.5), 0.2)
    assert np.isfinite(env.state({}, 1.0)).all()
    first, second = graph.prunable()
    norms = input_norms(model, graph)
    reads = model.kernel.abs().sum((2, 3)).view(2, 3, 4).sum(1) + model.gains.abs().view(1, 4)
    torch.testing.assert_close(norms[first.name], reads.sum(0).detach())
    reads = model.matrix.abs().sum(0) + model.inputs.abs()
    torch.testing.assert_close(norms[second.name], reads.view(2, 3).sum(0).detach())


def test_the_norm_of_a_channel_is_that_of_what_reads_it():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(96, 10)
    )
    graph = trace(model, (1, 8, 8))
    with torch.no_grad():
        model[3].weight.fill_(0)
        model[3].weight[:3, 1] = 2.0  # the second input of the first half
        model[3].weight[3:, 0] = -1.0  # and the first of the second
    norms = input_norms(model, graph)["0"]
    per_channel = torch.tensor([0.0, 3 * 9 * 2.0, 3 * 9 * 1.0, 0.0])
    group = graph.group("0")
    torch.testing.assert_close(norms, per_channel.view(group.per_gate, group.gate_count).sum(0))
