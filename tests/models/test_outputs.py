"""What a network must be is said in one line before anything is learned."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import outputs
from pfs_core.models.outputs import check_built_again, check_network

SPEC = ModelSpec(name="nets:build", num_classes=5, input_shape=(3, 8, 8))


class Net(nn.Module):
    """A convolution and a head; ``output(self, logits)`` is what it returns, ``layers`` are further modules."""

    def __init__(self, output=lambda net, logits: logits, classes=5, **layers):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)
        self.output = output
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x, mask=None):
        return self.output(self, self.head(self.conv(x).mean((2, 3))))


class Stateful(nn.Module):
    """A module with state that is no tensor."""

    def get_extra_state(self):
        return {"version": 3}


class Expanded(nn.Module):
    """A module with a buffer whose rows share their memory."""

    def __init__(self):
        super().__init__()
        self.register_buffer("ones", torch.ones(1, 4).expand(3, 4))


def refused(model):
    """The one line that says what is wrong."""
    with pytest.raises(UserError) as error:
        check_network(model, SPEC)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("output", "layers"),
    [
        (lambda net, logits: logits.softmax(1), {}),
        (lambda net, logits: nn.functional.softmax(logits, -1), {}),
        (lambda net, logits: torch.softmax(logits, dim=1), {}),
        (lambda net, logits: net.last(logits), {"last": nn.Softmax(1)}),
    ],
)
def test_probabilities_are_refused_where_the_loss_takes_them(output, layers):
    assert "returns the probabilities of a softmax in training mode" in refused(Net(output, **layers))
    check_network(Net(lambda net, logits: logits if net.training else output(net, logits), **layers), SPEC)


def test_a_softmax_within_a_network_is_its_own_business():
    check_network(Net(lambda net, logits: logits * logits.softmax(1)), SPEC)
    check_network(Net(lambda net, logits: logits.log_softmax(1)), SPEC)


def test_a_classifier_is_accepted():
    model = Net().train()
    check_network(model, SPEC)
    assert model.training


RIGHT = "it must return logits [images, classes], here [N, 5]"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda net, logits: (logits, logits), f"it returns an object of type tuple; {RIGHT}"),
        (lambda net, logits: {"logits": logits}, f"it returns an object of type dict; {RIGHT}"),
        (
            lambda net, logits: (logits, 2 * logits) if net.training else logits,
            f"it returns an object of type tuple in training mode; {RIGHT}",
        ),
        (lambda net, logits: logits[:, :, None, None], f"it returns a tensor [N, 5, 1, 1]; {RIGHT}"),
        (lambda net, logits: logits[:, 0], f"it returns a tensor [N]; {RIGHT}"),
        (lambda net, logits: torch.cat([logits, logits]), f"it returns a tensor [4, 5]; {RIGHT}"),
        (lambda net, logits: logits.squeeze(), f"it returns a tensor [5] for a single image; {RIGHT}"),
    ],
)
def test_other_outputs_are_refused(output, said):
    assert refused(Net(output)) == f"model nets:build: {said}"


@pytest.mark.parametrize("classes", [2, 1000])
def test_another_number_of_classes_is_refused(classes):
    assert refused(Net(classes=classes)) == (
        f"model nets:build: it returns {classes} values an image, and there are 5 classes; "
        "let its factory take num_classes"
    )


def test_a_network_that_fails_in_training_mode_is_refused():
    def fails(net, logits):
        assert not net.training, "only for evaluation"
        return logits

    said = refused(Net(fails))
    assert said.startswith("Net cannot process 3x8x8 images in training mode: only for evaluation (test_outputs.py, ")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_refused(dtype):
    said = f"model nets:build: it has weights in {dtype}; return it in float32, as .float() makes it"
    assert refused(Net().to(dtype)) == said


def test_what_cannot_be_stored_or_loaded_is_refused():
    assert refused(Net(extra=Stateful())) == (
        "model nets:build: its state has extra._extra_state, an object of type dict, and files of weights hold tensors "
        "alone; leave it out of get_extra_state"
    )
    assert refused(Net(extra=Expanded())) == (
        "model nets:build: extra.ones is an expanded tensor, which cannot be loaded; add .clone()"
    )


def test_lazy_layers_are_refused():
    with pytest.raises(UserError, match="cannot be copied: it has lazy layers"):
        check_network(Net(late=nn.LazyLinear(4)), SPEC)
    with pytest.raises(UserError, match="cannot be copied: it has lazy layers"):
        check_network(Net(late=nn.LazyBatchNorm2d(affine=False)), SPEC)


def test_an_argument_that_is_missing_is_not_said_to_be_in_our_code():
    class Needing(Net):
        def forward(self, x, *, scale):
            return super().forward(x * scale)

    with pytest.raises(UserError, match="missing 1 required keyword-only argument: 'scale'") as error:
        check_network(Needing(), SPEC)
    assert "outputs.py" not in str(error.value)


class Making(Net):
    """A network that makes a positional embedding when it is first called."""

    def __init__(self):
        super().__init__()
        self.embedding = None

    def forward(self, x, mask=None):
        if self.embedding is None:
            self.embedding = nn.Parameter(torch.zeros(x.shape[1:]))
        return super().forward(x + self.embedding)


def test_a_parameter_that_forward_makes_is_refused():
    assert "its forward makes the parameter or buffer embedding, which no optimiser would know" in refused(Making())


@pytest.mark.parametrize(
    ("held", "right"),
    [
        ([nn.Conv2d(3, 3, 1)], "held is a list of layers or parameters, which PyTorch neither trains nor stores; "
                               "make it an nn.ModuleList"),
        ({"a": nn.Parameter(torch.ones(3))}, "make it an nn.ParameterDict"),
    ],
)  # fmt: skip
def test_layers_that_pytorch_does_not_find_are_refused(held, right):
    model = Net()
    model.held = held
    assert right in refused(model)


def test_a_list_of_layers_that_are_registered_too_is_accepted():
    model = Net()
    model.order = [model.conv, model.head]
    check_network(model, SPEC)


def holding(value):
    """What makes networks that hold something beside their state."""

    def build():
        model = Net()
        model.order = value()
        return model

    return build


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (lambda: torch.randperm(32), False),
        (lambda: torch.arange(32), True),
        (lambda: np.random.permutation(32), False),
        (lambda: random.sample(range(32), 32), False),
        (lambda: [2, 2, 6, 2], True),
        (object, True),
    ],
)
def test_what_is_drawn_beside_the_state_is_refused(monkeypatch, value, same):
    build = holding(value)
    monkeypatch.setattr(outputs, "build_model", lambda spec: build())
    if same:
        check_built_again(build(), SPEC)
    else:
        with pytest.raises(UserError, match="order is drawn at random when the network is made") as error:
            check_built_again(build(), SPEC)
        assert "\n" not in str(error.value)


def test_a_buffer_that_is_drawn_may_be_stored(monkeypatch):
    def build(persistent):
        model = Net()
        model.register_buffer("order", torch.randperm(32), persistent=persistent)
        return model

    monkeypatch.setattr(outputs, "build_model", lambda spec: build(True))
    check_built_again(build(True), SPEC)
    monkeypatch.setattr(outputs, "build_model", lambda spec: build(False))
    with pytest.raises(UserError, match="order is drawn at random"):
        check_built_again(build(False), SPEC)
