"""Statistics of BatchNorms are the means over all calls, also of layers that want a number as their momentum."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.nn.batch_statistics import recompute_statistics


class Numbered(nn.BatchNorm2d):
    """As in many layers of one's own: the momentum goes to the function."""

    def forward(self, x):
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        ).relu()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Numbered])
def test_they_are_the_means_over_the_batches(norm):
    torch.manual_seed(0)
    model = norm(3, momentum=0.3)
    batches = [torch.randn(4, 3, 5, 5) * scale + scale for scale in (1.0, 2.0, 5.0)]
    recompute_statistics(model, batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
    assert torch.allclose(model.running_mean, means, atol=1e-6)
    assert torch.allclose(model.running_var, variances, rtol=1e-5)
    assert (model.momentum, model.training, dict(model._forward_pre_hooks)) == (0.3, False, {})


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(x) + self.norm(3 * x + 1)


def test_a_layer_that_is_called_twice_averages_both():
    model, x = Twice(), torch.randn(4, 2, 6, 6)
    recompute_statistics(model, [x])
    assert torch.allclose(model.norm.running_mean, (x.mean((0, 2, 3)) * 4 + 1) / 2, atol=1e-6)
