"""Small networks of many families of timm: proved, and most of them prunable (all: benchmarks/networks.py)."""

import pytest
import torch

from pfs_core.channels import refuted_groups, resize, slice_weights, trace
from pfs_core.models import build_model
from tests.channels.masking import EXACT, calibrated, difference, masked, random_kept

SHAPE = (3, 64, 64)
QUICK = ("lcnet_050", "mobilenetv3_small_100", "regnetx_002", "repvgg_a0", "cs3darknet_focus_s", "fasternet_t0")
SLOW = ("resnet10t", "tinynet_e", "ese_vovnet19b_slim_dw", "dla46_c", "skresnet18")
NAMES = (*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
HALF = 0.5


@pytest.mark.parametrize("name", NAMES)
def test_it_is_proved_and_most_of_it_is_prunable(name):
    torch.manual_seed(0)
    model = build_model(f"timm:{name}", num_classes=10)
    whole = trace(model, SHAPE, "all")
    refuted = refuted_groups(model, whole)
    assert not refuted.frozen
    whole, inner = refuted.corrected(whole), refuted.corrected(trace(model, SHAPE))
    assert inner.prunable_macs() > 0.8 * inner.cost().macs
    assert whole.cost(whole.expanded(HALF)).macs < 0.55 * whole.cost().macs
    resized = resize(model, whole, whole.expanded(HALF)).train()
    resized(torch.randn(2, *SHAPE)).square().sum().backward()
    kept, model = random_kept(whole), calibrated(model, SHAPE, 2)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        assert difference(masked(model, whole, kept)(x), slice_weights(model, whole, kept)(x)) < EXACT
