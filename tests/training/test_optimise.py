"""What changes the weights in a step, against formulas written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.config.stages import RetrainConfig
from pfs_core.models import build_model
from pfs_core.training.fit import backward
from pfs_core.training.optimise import Optimisation, averaged, micro_batches, parameter_groups

RECIPE = RetrainConfig(epochs=1, batch_size=12, momentum=0.0, weight_decay=0.0)


def called(network, images):
    """The logits of images."""
    return network(images)


def recipe(**changes):
    return RECIPE.updated(changes, "retrain")


def network(seed=0):
    """A float64 network without BatchNorm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


def batch(rows, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(rows, 3, 6, 6, generator=random, dtype=torch.float64)
    return images, torch.randint(5, (rows,), generator=random)


def gradients(model):
    return [weights.grad for weights in model.parameters()]


@given(st.integers(1, 13), st.integers(1, 6), st.sampled_from([0.0, 0.1]))
def test_the_gradient_of_micro_batches_is_that_of_the_whole_batch(rows, accumulate, smoothing):
    images, labels = batch(rows)
    whole, parts = network(), network()
    loss = F.cross_entropy(whole(images), labels, label_smoothing=smoothing)
    loss.backward()
    sums = backward(parts, called, images, labels, rows, recipe(accumulate=accumulate, label_smoothing=smoothing))
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    right = (whole(images).argmax(1) == labels).sum().item()
    assert sums.tolist() == pytest.approx([loss.item() * rows, right])


@given(st.integers(2, 40), st.integers(1, 20), st.integers(1, 50))
def test_micro_batches_are_all_images_in_order_and_never_one_alone(batch_size, accumulate, rows):
    accumulate = min(accumulate, batch_size // 2)
    settings = RetrainConfig(epochs=1, batch_size=batch_size, accumulate=accumulate)
    rows = min(rows, batch_size + 1)
    parts = list(micro_batches(torch.arange(rows), torch.arange(rows), settings))
    assert torch.equal(torch.cat([images for images, _ in parts]), torch.arange(rows))
    assert all(torch.equal(images, labels) for images, labels in parts)
    assert all(len(labels) > 1 for _, labels in parts) or rows == 1
    assert len(parts) <= accumulate
    assert max(len(labels) for _, labels in parts) <= -(-batch_size // accumulate) + 1


def test_label_smoothing_is_the_cross_entropy_with_mixed_labels():
    images, labels = batch(7)
    model, smoothing = network(), 0.3
    target = (1 - smoothing) * F.one_hot(labels, 5) + smoothing / 5
    loss = -(target * model(images).log_softmax(1)).sum(1)
    sums = backward(model, called, images, labels, 7, recipe(label_smoothing=smoothing))
    assert sums[0].item() == pytest.approx(loss.sum().item())


@pytest.mark.parametrize("name", ["resnet20", "vgg11"])
def test_weight_decay_spares_scales_shifts_and_biases(name):
    model = build_model(name)
    names = {weights: name for name, weights in model.named_parameters()}
    decayed, spared = parameter_groups(model, recipe(decay_norm_and_bias=False))
    found = {names[weights] for weights in spared["params"]}
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    biases = {name for name in names.values() if name.endswith(".bias")}
    assert found == biases | {f"{norm}.weight" for norm in norms}
    assert {names[weights] for weights in decayed["params"]} == set(names.values()) - found
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    (everything,) = parameter_groups(model, recipe())
    assert everything["params"] == list(model.parameters())


def test_without_a_gradient_only_the_decayed_weights_shrink():
    model = network()
    before = [weights.detach().clone() for weights in model.parameters()]
    optimisation = Optimisation(model, recipe(lr=0.5, weight_decay=0.1, decay_norm_and_bias=False), steps=10)
    for weights in model.parameters():
        weights.grad = torch.zeros_like(weights)
    optimisation.step()
    for old, weights in zip(before, model.parameters(), strict=True):
        factor = 0.95 if weights.ndim > 1 else 1.0
        torch.testing.assert_close(weights.detach(), factor * old)


@pytest.mark.parametrize(("clip_norm", "length"), [(0.5, 0.5), (100.0, 5.0)])
def test_a_gradient_longer_than_the_norm_is_scaled_to_it(clip_norm, length):
    model = nn.Linear(2, 1)
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimisation = Optimisation(model, recipe(lr=1.0, clip_norm=clip_norm), steps=10)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    optimisation.step()
    moved = start - nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.testing.assert_close(moved, length / 5 * torch.tensor([3.0, 0.0, 4.0]), rtol=1e-4, atol=1e-6)


def test_the_average_of_three_steps():
    model = nn.BatchNorm1d(3)
    average = averaged(model, 0.9)
    weights, means = [], []
    for step in range(3):
        with torch.no_grad():
            model.weight.fill_(10.0 * step + 1)
        model(torch.full((4, 3), 2.0 ** (step + 4)))
        average.update_parameters(model)
        weights.append(model.weight.detach().clone())
        means.append(model.running_mean.clone())
    for values, found in ((weights, average.module.weight), (means, average.module.running_mean)):
        expected = 0.9 * (0.9 * values[0] + 0.1 * values[1]) + 0.1 * values[2]
        torch.testing.assert_close(found.detach(), expected)
    assert average.module.num_batches_tracked == model.num_batches_tracked == 3


def test_a_step_updates_the_average_and_takes_the_gradients_away():
    model = network()
    optimisation = Optimisation(model, recipe(ema=0.75, lr=0.1), steps=10)
    assert optimisation.network is not model
    seen = []
    for number in range(3):
        backward(model, called, *batch(6, number), 6, recipe())
        optimisation.step()
        seen.append(model[0].weight.detach().clone())
        assert gradients(model) == [None] * 4
    expected = 0.75 * (0.75 * seen[0] + 0.25 * seen[1]) + 0.25 * seen[2]
    torch.testing.assert_close(optimisation.network[0].weight.detach(), expected)


def test_without_an_average_the_trained_network_is_the_one_tested():
    model = network()
    assert Optimisation(model, recipe(), steps=10).network is model


def test_a_buffer_that_is_infinite_by_design_is_not_watched():
    model = network()
    model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    assert all(tensor.isfinite().all() for tensor in Optimisation(model, recipe(), steps=10).watched)
