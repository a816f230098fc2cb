"""The settings of the method, and what the report says of a search by it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pfs_core.methods.config import TrainedConfig


class NetworkSlimmingConfig(TrainedConfig):
    """Network Slimming (Liu et al. 2017): training with an L1 penalty on BatchNorm's scales, then a global cut."""

    method: Literal["network_slimming"] = "network_slimming"
    sparsity: float = Field(default=1e-5, ge=0)
    """The penalty's weight; 1e-4 is usual for VGG on CIFAR, 1e-5 for ResNets."""
    initial_scale: float = Field(default=0.5, gt=0)
    """Of the penalised scales."""
    rounds: int = Field(default=1, ge=1)
    """Times that the network is trained and cut; the earlier cuts lie evenly, as factors, before the budget."""


def describe(info: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """What was done, from ``search.json``."""
    config = info["recipe"]
    return (
        f"{config['rounds']} x {config['epochs']} epochs of training with an L1 penalty of {config['sparsity']} on the "
        f"scales of BatchNorms, to a validation accuracy of {info['validation_accuracy']:.1%}"
    )
