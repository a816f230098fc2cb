"""Tracing leaves everything as it was, and says in one line what it cannot do."""

import pytest
import torch
from torch import nn

from pfs_core.channels import trace
from pfs_core.errors import UserError
from pfs_core.models import build_model
from tests.channels.networks import INPUT, Residual, conv3, plain


def test_the_model_and_the_random_state_stay_as_they_were():
    model = Residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trace(model, INPUT)
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_graph_does_not_depend_on_the_weights():
    assert trace(Residual(), INPUT) == trace(Residual(), INPUT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_precision_is_traced(dtype):
    assert trace(plain().to(dtype), INPUT) == trace(plain(), INPUT)


@pytest.mark.parametrize(
    ("name", "input_shape", "reason"),
    [("vgg16", (3, 8, 8), "too small"), ("resnet20", (1, 32, 32), "hannel")],
)
def test_images_that_do_not_fit_are_refused_in_one_line(name, input_shape, reason, capfd):
    with pytest.raises(UserError, match=reason) as error:
        trace(build_model(name), input_shape)
    assert "x".join(map(str, input_shape)) in str(error.value)
    assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


class Branching(nn.Module):
    """Looks at its values."""

    def __init__(self):
        super().__init__()
        self.conv = conv3(2, 4)

    def forward(self, x):
        x = self.conv(x)
        return x if x.sum() > 0 else -x


class TwoInputs(Branching):
    """Needs more than an image."""

    def forward(self, x, y):
        return self.conv(x) + y


@pytest.mark.parametrize("model", [Branching, TwoInputs])
def test_a_model_that_cannot_be_traced_is_refused(model):
    with pytest.raises(UserError, match=model.__name__) as error:
        trace(model(), INPUT)
    assert "\n" not in str(error.value)
