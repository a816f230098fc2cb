"""The proofs of the channel graph over random networks."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pfs_core.channels import resize, slice_weights, trace
from pfs_core.channels.proof import silenced
from tests.channels.counting import counted
from tests.channels.masking import calibrated, difference, masked, random_kept
from tests.channels.random_networks import BLOCKS, CLASSES, HEADS, INPUT, descriptions, network
from tests.channels.test_torchvision import random_widths


def prove(description, seed):
    """Everything that must hold for a network."""
    torch.manual_seed(seed)
    model = network(description)
    for policy in ("inner", "all"):
        graph = trace(model, INPUT, policy)
        assert graph.cost() == counted(network(description), INPUT)
        for group in graph.groups:
            assert group.prunable == (not group.reason) == bool(group.gates)
        prove_resize(model, graph, random_widths(graph, seed), policy)
        prove_masked_equals_pruned(network(description), graph, seed)
        prove_branches(network(description), graph)


def prove_resize(model, graph, widths, policy):
    resized = resize(model, graph, widths)
    out = resized(torch.randn(2, *INPUT))
    out.sum().backward()
    assert out.shape == (2, CLASSES)
    again = trace(resized, INPUT, policy)
    assert graph.cost(widths) == again.cost() == counted(resized, INPUT)
    several = all(widths[group.name] > group.per_gate for group in graph.groups)  # a single channel may be broadcast
    if depthwise(model) == depthwise(resized) and several:
        assert again.widths() == widths


def prove_branches(model, graph):
    """Without its branches a network costs what the closed form says, and computes what it does where they return 0."""
    gone = [name for branch in graph.branches for name in branch.groups]
    widths = graph.widths() | dict.fromkeys(gone, 0)
    assert graph.cost(widths) == counted(resize(model, graph, widths), INPUT)
    model = calibrated(model, INPUT)
    x = torch.randn(3, *INPUT, dtype=torch.float64)
    with torch.no_grad():
        removed = slice_weights(model, graph, dict.fromkeys(gone, torch.arange(0)))(x)
        assert difference(silenced(model, [branch.name for branch in graph.branches])(x), removed) < 1e-9


def depthwise(model):
    """Layers that look depthwise: at some widths a grouped convolution does, and a depthwise one does not."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1
    }


def prove_masked_equals_pruned(model, graph, seed):
    model = calibrated(model, INPUT)
    x = torch.randn(3, *INPUT, dtype=torch.float64)
    kept = random_kept(graph, seed)
    with torch.no_grad():
        pruned = slice_weights(model, graph, kept)(x)
        assert difference(masked(model, graph, kept)(x), pruned) < 1e-9
        if any(len(index) < graph.group(name).gate_count for name, index in kept.items()):
            assume(difference(pruned, model(x)) > 0)  # else the mask is on dead units and nothing is shown


@settings(max_examples=20)
@given(description=descriptions, seed=st.integers(0, 99))
def test_the_proofs_hold_for_random_networks(description, seed):
    prove(description, seed)


@pytest.mark.slow
@settings(max_examples=300)
@given(description=descriptions, seed=st.integers(100, 9999))
def test_the_proofs_hold_for_many_random_networks(description, seed):
    prove(description, seed)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
def test_the_proofs_hold_for_each_block_between_others(kind):
    blocks = [(BLOCKS[0], 6, "relu"), (kind, 8, "silu"), (BLOCKS[0], 6, "relu")]
    prove((blocks, HEADS[1]), 0)
