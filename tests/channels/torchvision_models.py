"""torchvision's classification networks that the proofs are held over."""

from functools import cache

import torch

from pfs_core.channels import Refuted, refuted_groups, trace
from pfs_core.config.spec import ModelSpec
from pfs_core.models import build_model

PLAIN = (
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "densenet121",
    "densenet169", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_0",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_x_800mf", "regnet_y_400mf", "regnet_y_800mf",
    "convnext_tiny", "convnext_small",
)  # fmt: skip
TRANSFORMERS = ("vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t")
SIZES_AS_NUMBERS = ("swin_t", "swin_v2_t", "maxvit_t")
"""Networks whose export has the widths of a stream as numbers, so that only the proof tells that they cannot change."""
SMALLEST = {"vit_b_16": 224, "vit_b_32": 224, "maxvit_t": 224, "inception_v3": 80, "alexnet": 80}
"""Sides of the smallest images that tests feed; 64 for the others."""


def published(name):
    """Channels, height and width of the images a network was published for."""
    return (3, 299, 299) if name == "inception_v3" else (3, 224, 224)


def small(name):
    """An image shape that is quick to compute."""
    side = SMALLEST.get(name, 64)
    return (3, side, side)


def build(name):
    """The network with 10 classes, on the CPU."""
    torch.manual_seed(0)
    return build_model(ModelSpec(name=f"torchvision:{name}", num_classes=10, input_shape=published(name)))


@cache
def on_meta(name):
    """The network without its weights."""
    return build(name).to("meta")


@cache
def refuted(name, policy="inner"):
    """The groups that the proof freezes."""
    model = build(name)
    return refuted_groups(model, trace(model, small(name), policy)) if name in SIZES_AS_NUMBERS else Refuted()


def traced_for_search(name, model, policy="inner"):
    """The channel graph of a network that takes small images."""
    return refuted(name, policy).corrected(trace(model, small(name), policy))


def graph(name):
    """Its channel graph at the published size."""
    return refuted(name).corrected(trace(on_meta(name), published(name)))
