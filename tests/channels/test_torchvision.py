"""What holds for every network of torchvision: exact cost, any legal width, and a masked channel is an absent one."""

import random
import re

import pytest
import torch
from torch.func import functional_call

from pfs_core.channels import resize, slice_weights, trace
from pfs_core.methods.pfs.gates import Gates
from tests.channels.counting import counted
from tests.channels.masking import CHANGED, EXACT, calibrated, difference, masked, random_kept
from tests.channels.torchvision_models import (
    PLAIN,
    TRANSFORMERS,
    build,
    graph,
    on_meta,
    published,
    small,
    traced_for_search,
)

QUICK = (
    "alexnet", "resnet18", "densenet121", "googlenet", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small",
    "efficientnet_b0", "regnet_y_400mf", "convnext_tiny",
)  # fmt: skip
ALL = [*PLAIN, *TRANSFORMERS]
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
HEAVY = (
    "swin_t", "swin_v2_t", "densenet169", "efficientnet_v2_s", "convnext_small", "vit_b_16", "maxvit_t",
    "wide_resnet50_2", "regnet_x_800mf", "regnet_y_800mf", "mnasnet1_0", "shufflenet_v2_x1_0", "vgg16_bn",
)  # fmt: skip
"""Their costs take longest; of all but the windowed transformers, a smaller one of the family is among the others."""
COSTS = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in ALL]


def random_widths(traced, seed, largest=1.5):
    """A legal width for every group."""
    draw = random.Random(seed)
    return {
        g.name: draw.randint(1, max(1, int(g.gate_count * largest))) * g.per_gate if g.resizable else g.width
        for g in traced.groups
    }


@pytest.mark.parametrize("name", COSTS)
def test_closed_form_equals_flop_counter(name):
    traced, model = graph(name), on_meta(name)
    check_reasons(traced)
    assert traced.cost() == counted(model, published(name))
    widths = random_widths(traced, seed=1)
    assert traced.cost(widths) == counted(resize(model, traced, widths), published(name))
    if name in PLAIN:
        assert traced.prunable_macs() > 0.8 * traced.cost().macs
    else:
        check_transformer(name, traced)


def check_reasons(traced):
    """A group is prunable or says why not."""
    for group in traced.groups:
        assert group.prunable == (not group.reason) == bool(group.gates)


def check_transformer(name, traced):
    """The hidden widths of the MLPs are prunable; in MaxViT also its stem, convolutional blocks and classifier."""
    names = [group.name for group in traced.prunable()]
    hidden = r".*\.mlp_layer\.1|.*\.conv_a\.0|.*\.squeeze_excitation\.fc1|stem\.[01]\.0|classifier\.3"
    pattern = re.compile(hidden if name == "maxvit_t" else r".*\.mlp\.0")
    assert names
    assert [name for name in names if not pattern.fullmatch(name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_random_resize_runs_forward_and_backward(name):
    model = build(name)
    traced = traced_for_search(name, model)
    resized = resize(model, traced, random_widths(traced, seed=2, largest=0.4)).train()
    out = resized(torch.randn(2, *small(name)))
    out.square().sum().backward()
    assert out.shape == (2, 10)
    assert out.isfinite().all()
    weights = dict(resized.named_parameters())
    read = [axis.module for axis in traced.axes if axis.role == "reads"]
    assert all(weights.get(name, weights.get(f"{name}.weight")).grad is not None for name in read)


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_pruned(name, policy):
    shape = small(name)
    model = build(name)
    traced = traced_for_search(name, model, policy)
    check_reasons(traced)
    model = calibrated(model, shape, 4)
    kept = random_kept(traced)
    x = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        whole, mask, pruned = model(x), masked(model, traced, kept)(x), slice_weights(model, traced, kept)(x)
        assert difference(mask, pruned) < EXACT
        assert difference(mask, whole) > CHANGED


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", pytest.param("regnet_y_400mf", marks=pytest.mark.slow), "squeezenet1_1"]
)
def test_masking_one_group_equals_pruning_it(name):
    model = build(name)
    traced = trace(model, small(name), "all")
    model = calibrated(model, small(name), 4)
    x = torch.randn(2, *small(name), dtype=torch.float64)
    whole = model(x)
    with torch.no_grad():
        for group, index in random_kept(traced).items():
            pruned = slice_weights(model, traced, {group: index})(x)
            assert difference(masked(model, traced, {group: index})(x), pruned) < EXACT, group
            assert group in traced.widths()
            assert difference(pruned, whole) > 0, group


@pytest.mark.parametrize(
    "name", ["densenet121", "regnet_y_400mf", "squeezenet1_1", "convnext_tiny", "shufflenet_v2_x0_5"]
)
def test_gates_of_zero_compute_the_pruned_network(name):
    """What a search computes is what retraining will have."""
    model = build(name)
    traced = trace(model, small(name))
    model = calibrated(model, small(name), 4)
    gates = Gates(model, traced)
    with torch.no_grad():
        gates.values.copy_(torch.rand(len(gates.values)) > 0.5)
        for part in gates.values.split([group.gate_count for group in traced.prunable()]):
            part[0] = 1
        kept = {group: values.nonzero().flatten() for group, values in gates.by_group().items()}
        x = torch.randn(2, *small(name), dtype=torch.float64)
        computed = functional_call(model, {k: v.double() for k, v in gates.scales().items()}, (x,))
        for module in model.modules():
            module._forward_hooks.clear()
        assert difference(computed, slice_weights(model, traced, kept)(x)) < EXACT
        assert difference(computed, model(x)) > CHANGED
