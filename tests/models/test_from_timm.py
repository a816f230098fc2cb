"""timm's networks by name."""

import sys

import pytest
import torch

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import build_model, published_fields


def refused(name, **fields):
    """The one line that says why there is no such network."""
    with pytest.raises(UserError) as error, torch.device("meta"):
        build_model(f"timm:{name}", **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_channels_and_keyword_arguments_reach_the_network():
    spec = ModelSpec(name="timm:resnet10t", num_classes=7, input_shape=(1, 64, 64), kwargs={"drop_rate": 0.25})
    with torch.device("meta"):
        model = build_model(spec)
    assert model(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 7)
    assert model.drop_rate == 0.25


def test_the_published_images_and_classes_are_known():
    assert published_fields("timm:resnet18") == {"input_shape": (3, 224, 224), "num_classes": 1000}
    assert published_fields("timm:inception_v3")["input_shape"] == (3, 299, 299)


def test_what_cannot_be_built_is_refused():
    unknown = "unknown model 'timm:efficientnet_b9' (did you mean timm:efficientnet_b"
    assert refused("efficientnet_b9").startswith(unknown)
    assert refused("resnet18", kwargs={"pretrained": True}) == (
        "model.pretrained cannot be set: networks are trained from scratch"
    )
    assert "unexpected keyword argument 'depth'" in refused("resnet18", kwargs={"depth": 3})


def test_without_timm_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refused("resnet18") == "model timm:resnet18 needs timm; install it with: pip install 'pfs[timm]'"
