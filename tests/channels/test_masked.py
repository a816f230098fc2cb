"""A masked channel is an absent one: what makes gates on random weights mean widths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pfs_core.channels import slice_weights, trace
from pfs_core.models import build_model
from tests.channels import networks
from tests.channels.masking import calibrated, difference, masked, random_kept
from tests.channels.networks import INPUT, NETWORKS

IMAGES = (3, 32, 32)
EXACT = 1e-10
CHANGED = 1e-3


def outputs(model, graph, kept, input_shape):
    """Of the whole, the masked and the pruned network on the same images."""
    pruned = slice_weights(model, graph, kept)
    widths = graph.widths() | {group: len(index) * graph.group(group).per_gate for group, index in kept.items()}
    assert sum(p.numel() for p in pruned.parameters()) == graph.cost(widths).params
    x = torch.randn(4, *input_shape, dtype=torch.float64)
    with torch.no_grad():
        return model(x), masked(model, graph, kept)(x), pruned(x)


@pytest.mark.parametrize(
    ("build", "policy"),
    [
        (lambda: build_model("resnet20"), "inner"),
        (lambda: build_model("resnet20"), "all"),
        (lambda: build_model("resnet56"), "inner"),
        (lambda: build_model("vgg16"), "inner"),
    ],
    ids=["resnet20", "resnet20-all", "resnet56", "vgg16"],
)
def test_masked_equals_pruned(build, policy):
    torch.manual_seed(0)
    model = build()
    graph = trace(model, IMAGES, policy)
    model = calibrated(model, IMAGES)
    whole, mask, pruned = outputs(model, graph, random_kept(graph), IMAGES)
    assert difference(mask, pruned) < EXACT
    assert difference(mask, whole) > CHANGED


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"chunked"}))
@settings(max_examples=15)
@given(data=st.data())
def test_masked_equals_pruned_for_any_kept_channels(name, policy, data):
    torch.manual_seed(0)
    model = NETWORKS[name].build()
    graph = trace(model, INPUT, policy)
    model = calibrated(model, INPUT)
    assert graph.prunable()
    kept = {}
    for group in graph.prunable():
        index = data.draw(st.sets(st.integers(0, group.gate_count - 1), min_size=1))
        kept[group.name] = torch.tensor(sorted(index))
    whole, mask, pruned = outputs(model, graph, kept, INPUT)
    assert difference(mask, pruned) < EXACT
    if any(len(index) < graph.group(name).gate_count for name, index in kept.items()):
        assert difference(mask, whole) > 1e-6


def test_masking_the_bn_before_a_depthwise_convolution_is_not_pruning():
    torch.manual_seed(0)
    model = networks.separable()
    graph = trace(model, INPUT)
    first = trace(model, INPUT, placement="official")
    assert (first.group("conv1").gates, graph.group("conv1").gates) == (("bn1",), ("bn2",))
    model = calibrated(model, INPUT)
    kept = {"conv1": torch.tensor([0, 3, 5])}
    x = torch.randn(4, *INPUT, dtype=torch.float64)
    with torch.no_grad():
        pruned = slice_weights(model, graph, kept)(x)
        assert difference(masked(model, first, kept)(x), pruned) > CHANGED
        assert difference(masked(model, graph, kept)(x), pruned) < EXACT


def test_slicing_to_all_channels_changes_nothing():
    torch.manual_seed(0)
    model = networks.Residual()
    graph = trace(model, INPUT)
    model = calibrated(model, INPUT)
    copy = slice_weights(model, graph, {group.name: torch.arange(group.width) for group in graph.groups})
    for (name, value), (other_name, other) in zip(model.state_dict().items(), copy.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(value, other)


def test_slicing_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model = calibrated(networks.Residual(), INPUT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = trace(model, INPUT, "all")
    slice_weights(model, graph, random_kept(graph))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
