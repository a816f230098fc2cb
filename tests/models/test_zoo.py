"""Networks by name."""

import re

import pytest
import torch
from torch import nn

from pfs_core.errors import UserError
from pfs_core.models import MODELS, build_model
from pfs_core.spec import ModelSpec


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("classes", "shape"), [(10, (3, 32, 32)), (7, (1, 16, 24))])
def test_images_in_logits_out(name, classes, shape):
    model = build_model(name, num_classes=classes, input_shape=shape)
    assert model(torch.randn(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_a_factory_says_what_it_builds(name):
    assert MODELS[name].__doc__


@pytest.mark.parametrize(("name", "scale"), [("resnet20", 1.0), ("vgg16", 0.5)])
def test_initialisation_is_the_released_codes(name, scale):
    torch.manual_seed(0)
    for layer, module in build_model(name).named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.08), layer
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == scale).all()
            assert (module.bias == 0).all()


def test_same_seed_same_network():
    def weights(seed):
        torch.manual_seed(seed)
        return build_model("resnet20").state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_keyword_arguments_reach_the_network():
    assert build_model(ModelSpec(name="resnet20", kwargs={"width": 4})).conv1.out_channels == 4


def test_an_unknown_name_is_refused_with_the_nearest():
    message = "unknown model 'resnet21' (did you mean resnet20?); known: resnet20, resnet56, vgg16"
    with pytest.raises(UserError, match=re.escape(message)):
        build_model("resnet21")


@pytest.mark.parametrize(
    "kwargs", [{"depth": 20}, {"width": "wide"}, {"width": 0}, {"width": -4}, {"width": 2.5}], ids=str
)
def test_wrong_keyword_arguments_are_refused(kwargs):
    with pytest.raises(UserError, match=next(iter(kwargs))) as error:
        build_model(ModelSpec(name="resnet20", kwargs=kwargs))
    assert "\n" not in str(error.value)
