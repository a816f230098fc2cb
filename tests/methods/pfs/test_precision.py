"""Weights are converted to bf16 once, where the network runs with them."""

import pytest
import torch
from torch import nn

from pfs_core.channels import trace
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.runtime.device import native_bf16

SHAPE = (1, 8, 8)


class Island(nn.Module):
    """A convolution in float32 inside of autocast, as torch's documentation has it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return self.conv(x.float())


def network(middle):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        middle, nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


@pytest.mark.skipif(not native_bf16(torch.device("cpu")), reason="bf16 is not native here")
@pytest.mark.parametrize(("middle", "dtype"), [
    (nn.Conv2d(8, 8, 3, padding=1, bias=False), torch.bfloat16), (Island(), torch.float32),
])  # fmt: skip
def test_weights_stay_float32_where_the_network_fails_with_others(middle, dtype):
    model = network(middle)
    gated = GatedNetwork(model, trace(model, SHAPE), "bf16", 0.01)
    gated.step(gated(torch.randn(4, *SHAPE)).square().sum())
    assert (gated.gates.values != 1).any()
    assert {m.weight.dtype for m in gated.module.modules() if isinstance(m, nn.Conv2d | nn.Linear)} == {dtype}
