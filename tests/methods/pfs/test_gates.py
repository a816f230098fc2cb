"""Gates act through the scales of BatchNorms, and where there is none on the output of the layer that writes."""

import pytest
import torch
from torch.func import functional_call

from pfs_core.channels import slice_weights, trace
from pfs_core.methods.pfs.gates import Gates
from pfs_core.models import build_model
from tests.channels import networks
from tests.channels.masking import calibrated, difference

SHAPE, SHAPE_3 = (1, 16, 16), (3, 16, 16)


def gated(name="resnet20", policy="inner"):
    torch.manual_seed(0)
    model = build_model(name, input_shape=SHAPE)
    graph = trace(model, SHAPE, policy)
    return model, graph, Gates(model, graph)


@pytest.mark.parametrize("policy", ["inner", "all"])
@pytest.mark.parametrize("name", ["resnet20", "vgg16"])
def test_at_first_the_scales_are_the_networks_own(name, policy):
    model, graph, gates = gated(name, policy)
    scales = gates.scales()
    assert set(scales) == {f"{norm}.weight" for group in graph.prunable() for norm in group.gates}
    for parameter, scale in scales.items():
        assert torch.equal(scale, model.get_parameter(parameter))
    x = torch.randn(4, *SHAPE)
    assert torch.equal(functional_call(model.eval(), scales, (x,)), model(x))


def test_there_is_a_gate_a_channel():
    _, graph, gates = gated()
    assert gates.values.shape == (sum(group.width for group in graph.prunable()),)
    assert {name: len(values) for name, values in gates.by_group().items()} == {
        group.name: group.width for group in graph.prunable()
    }
    assert (gates.values == 1).all()


def test_a_gate_multiplies_the_scale_of_its_channel():
    model, _, gates = gated("vgg16")
    with torch.no_grad():
        gates.values[3] = 0.25
    scale = gates.scales()["features.1.weight"]
    assert scale[3].item() == pytest.approx(0.25 * 0.5)
    assert torch.equal(scale[:3], model.features[1].weight[:3])


def test_a_shared_gate_acts_on_every_writer_of_the_stream():
    _, graph, gates = gated(policy="all")
    start = [group.name for group in graph.prunable()].index("conv1")
    first = sum(group.width for group in graph.prunable()[:start])
    with torch.no_grad():
        gates.values[first] = 0
    scales = gates.scales()
    for norm in graph.group("conv1").gates:
        assert scales[f"{norm}.weight"][0] == 0
        assert (scales[f"{norm}.weight"][1:] == 1).all()


@pytest.mark.parametrize("network", [networks.separable, networks.Residual, networks.Twice])
def test_a_gate_of_zero_removes_its_channel(network):
    torch.manual_seed(0)
    model = network()
    graph = trace(model, networks.INPUT, "all")
    model = calibrated(model, networks.INPUT)
    gates = Gates(model, graph)
    with torch.no_grad():
        gates.values.copy_(torch.rand(len(gates.values)) > 0.4)
    kept = {name: values.nonzero().flatten() for name, values in gates.by_group().items()}
    assert all(0 < len(index) < graph.group(name).width for name, index in kept.items())
    x = torch.randn(4, *networks.INPUT, dtype=torch.float64)
    scales = {name: scale.double() for name, scale in gates.scales().items()}
    masked = functional_call(model, scales, (x,))
    assert difference(masked, slice_weights(model, graph, kept)(x)) < 1e-10
    assert difference(masked, model(x)) > 1e-3


def test_parameters_are_frozen_as_they_are():
    model = build_model("resnet20")
    torch.nn.init.ones_(model.bn1.bias)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Gates(model, trace(model, SHAPE_3))
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_gate_takes_the_shift_along():
    """A trained network's shifts are not 0: a masked channel is an absent one all the same."""
    torch.manual_seed(0)
    model = build_model("resnet20").double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    graph = trace(model, SHAPE_3)
    gates = Gates(model, graph)
    with torch.no_grad():
        gates.values[::3] = 0
    kept = {name: values.nonzero().flatten() for name, values in gates.by_group().items()}
    scales = {name: scale.double() for name, scale in gates.scales().items()}
    assert {name.rpartition(".")[2] for name in scales} == {"weight", "bias"}
    x = torch.randn(4, *SHAPE_3, dtype=torch.float64)
    masked = functional_call(model, scales, (x,))
    assert difference(masked, slice_weights(model, graph, kept)(x)) < 1e-10
    assert difference(masked, model(x)) > 1e-3


def test_the_gradient_reaches_the_gates_alone():
    model, _, gates = gated()
    model.train()
    functional_call(model, gates.scales(), (torch.randn(8, *SHAPE),)).square().mean().backward()
    assert gates.values.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


def test_clamping_puts_gates_into_0_to_1():
    _, _, gates = gated()
    with torch.no_grad():
        gates.values[:3] = torch.tensor([-0.5, 0.5, 1.5])
    gates.clamp_()
    assert gates.values[:3].tolist() == [0.0, 0.5, 1.0]


def test_gates_by_group_are_a_copy():
    _, _, gates = gated()
    given = gates.by_group()
    with torch.no_grad():
        gates.values.zero_()
    assert all((values == 1).all() for values in given.values())
