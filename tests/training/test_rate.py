"""What a step of training is said to take."""

import torch
from torch import nn

from pfs_core.config.stages import RetrainConfig
from pfs_core.runtime.device import memory_size
from pfs_core.training.rate import training_rate

CPU = torch.device("cpu")


def test_memory_is_what_the_backward_pass_needs():
    """A linear layer keeps its input, ReLU its output, the loss its log-probabilities; nothing twice."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 100), nn.ReLU(), nn.Linear(100, 10))
    config = RetrainConfig(epochs=1, batch_size=32, precision="fp32")
    found = training_rate(model, (3, 4, 4), 10, config, CPU)
    labels, weight = 8, 4 / 32  # an index each, and their number as a float of the whole batch
    assert found.bytes_per_image == 4 * (48 + 100 + 10) + labels + weight
    assert found.images > 0


def test_a_smaller_batch_takes_no_more_for_an_image():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    config = RetrainConfig(epochs=1, batch_size=64, precision="fp32")  # bf16 keeps a copy of the weights a batch
    whole, part = (
        training_rate(model, (3, 8, 8), 10, config.updated({"accumulate": n}, "retrain"), CPU) for n in (2, 8)
    )
    assert 0.9 < part.bytes_per_image / whole.bytes_per_image < 1.2


def test_memory_there_is():
    assert 2**28 < memory_size(CPU) < 2**50
