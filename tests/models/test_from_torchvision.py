"""torchvision's networks by name."""

import warnings

import pytest
import torch
import torchvision

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model, check_model_name, published_fields


def refused(name, **fields):
    """The one line that says why there is no such network."""
    with pytest.raises(UserError) as error, torch.device("meta"):
        build_model(f"torchvision:{name}", **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_have_one(name):
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("error")
        model = build_model(f"torchvision:{name}", num_classes=7)
    shape = published_fields(f"torchvision:{name}")["input_shape"]
    assert model(torch.empty(2, *shape, device="meta")).shape == (2, 7)


def test_classes_and_keyword_arguments_reach_the_network():
    spec = ModelSpec(name="torchvision:mobilenet_v3_small", num_classes=7, kwargs={"width_mult": 0.5, "dropout": 0.1})
    with torch.device("meta"):
        model = build_model(spec)
    assert model.classifier[-1].out_features == 7
    assert model.classifier[2].p == 0.1
    assert model.features[1].block[0][0].in_channels == 8


def test_what_the_user_gives_wins_over_our_presets():
    with torch.device("meta"):
        model = build_model("torchvision:googlenet", kwargs={"aux_logits": True})
    assert model.aux1 is not None


def test_the_published_images_and_classes_are_known():
    assert published_fields("torchvision:resnet18") == {"input_shape": (3, 224, 224), "num_classes": 1000}
    assert published_fields("torchvision:inception_v3")["input_shape"] == (3, 299, 299)


def test_every_classification_network_has_a_factory():
    for name in torchvision.models.list_models(module=torchvision.models):
        check_model_name(f"torchvision:{name}")


def test_what_cannot_be_built_is_refused():
    assert refused("resnet19") == (
        "unknown model 'torchvision:resnet19' (did you mean torchvision:resnet18?); "
        "see torchvision.models.list_models()"
    )
    assert "unknown model 'torchvision:fcn_resnet50'" in refused("fcn_resnet50")
    assert refused("resnet18", input_shape=(1, 32, 32)) == (
        "model torchvision:resnet18: torchvision's networks take 3 channels (got 1)"
    )
    assert "unexpected keyword argument 'depth'" in refused("resnet18", kwargs={"depth": 3})


@pytest.mark.parametrize("argument", ["weights", "pretrained"])
def test_trained_weights_are_refused_as_those_of_timm_are(argument):
    said = refused("resnet18", kwargs={argument: "DEFAULT"})
    assert said == f"model.{argument} cannot be set: networks are trained from scratch"
