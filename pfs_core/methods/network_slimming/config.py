"""Settings of Network Slimming, and how the report describes a search by it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pfs_core.methods.config import TrainedConfig

if TYPE_CHECKING:
    from pfs_core.methods.search_info import SearchInfo


class NetworkSlimmingConfig(TrainedConfig):
    """Settings of Network Slimming: training with an L1 penalty on BatchNorm's scales, then a global cut."""

    method: Literal["network_slimming"] = "network_slimming"
    """The name of the method."""
    sparsity: float = Field(default=1e-5, ge=0)
    """Weight of the L1 penalty in the loss; 1e-4 is usual for VGG on CIFAR, 1e-5 for ResNets."""
    initial_scale: float = Field(default=0.5, gt=0)
    """Value of the penalised BatchNorm scales before the training."""
    rounds: int = Field(default=1, ge=1, le=100)
    """Number of times the network is trained and cut; each of n rounds cuts the cost by the same factor, the n-th root
    of the budget."""

    def work(self, train: int, validation: int) -> tuple[str, float]:
        """As :meth:`MethodConfig.work`; the networks of later rounds are smaller, and taken for the first."""
        words, images = super().work(train, validation)
        return f"{self.rounds} x {words}" if self.rounds > 1 else words, self.rounds * images


def describe(info: "SearchInfo", last: Mapping[str, Any]) -> str:
    """Describe the search for the report, from ``search.json``."""
    config = info.config_as(NetworkSlimmingConfig)
    return (
        f"{config.rounds} x {config.epochs} epochs of training with an L1 penalty of {config.sparsity} on the "
        f"scales of BatchNorms, to a validation accuracy of {info.validation_accuracy:.1%}"
    )
