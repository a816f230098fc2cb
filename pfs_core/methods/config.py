"""What the settings of all methods have in common."""

from typing import Literal

from pydantic import Field

from pfs_core.config.spec import Config
from pfs_core.config.stages import Precision, RetrainConfig


class MethodConfig(Config):
    """Which channels a method chooses from. Every method's configuration extends it."""

    method: str = ""
    expand: float = Field(default=1.25, ge=1.0, le=8.0)
    """Factor on the prunable widths before the search."""
    expand_stream: float | None = Field(default=None, ge=1.0, le=8.0)
    """Factor on the residual streams; None leaves that to the network."""
    policy: Literal["inner", "all"] = "inner"
    """``all`` prunes residual streams too."""
    placement: Literal["last", "official"] = "last"
    """Gates at the last BatchNorm before channels are mixed, or, as the paper's released code, at the first."""
    precision: Precision = "auto"

    @property
    def history_axis(self) -> str:
        """The column of the method's history that its curves are drawn over."""
        return "epoch"


class TrainedConfig(MethodConfig):
    """Methods that start from a trained network: SGD with a multi-step schedule."""

    expand: float = Field(default=1.0, ge=1.0, le=8.0)
    """Factor on the prunable widths; these methods prune the published network."""
    epochs: int = Field(default=160, ge=1)
    """Of the training."""
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Fractions of the training at which the rate falls to a tenth."""

    def as_training(self) -> RetrainConfig:
        """The training of the network, on the training rows alone, as the training loop takes it."""
        return RetrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=False,
            weight_decay=self.weight_decay,
            milestones=self.milestones,
            precision=self.precision,
            scratch_b=False,
            train_on_validation=False,
        )
