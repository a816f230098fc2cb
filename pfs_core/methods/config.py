"""Settings that all methods share."""

from typing import Any, Literal

from pydantic import Field

from pfs_core.config.stages import Milestones, Precision, RetrainConfig, StageConfig


class MethodConfig(StageConfig):
    """Settings of every method: which channels it chooses from. The configuration of each method extends this one."""

    method: str = ""
    """The name of the method."""
    expand: float = Field(default=1.25, ge=1.0, le=8.0)
    """Factor by which the prunable widths are multiplied before the search."""
    expand_stream: float | None = Field(default=None, ge=1.0, le=8.0)
    """Factor by which the residual streams are multiplied before the search; None leaves that to the network."""
    policy: Literal["inner", "all"] = "inner"
    """``inner`` leaves the residual streams as wide as they are, ``all`` prunes them too."""
    placement: Literal["last", "official"] = "last"
    """Put gates at the ``last`` BatchNorm before channels are mixed or, as the paper's ``official`` code, the first."""
    precision: Precision = "auto"
    """Number format of the forward and backward passes; ``auto`` is bf16 where the device computes it natively."""

    @property
    def history_axis(self) -> str:
        """The column of the history that serves as the x axis of the method's curves."""
        return "epoch"

    def work(self, train: int, validation: int) -> tuple[str, float]:
        """What the search does, in words, and to training on how many images that comes.

        Args:
            train: number of training images.
            validation: number of validation images.
        """
        return "nothing to learn", 0.0

    def checkpoint_key(self) -> dict[str, Any]:
        """The settings that checkpoints of a search are known by, as JSON."""
        return self.model_dump(mode="json")


class TrainedConfig(MethodConfig):
    """Settings of methods that first train the network: SGD with a multi-step schedule."""

    expand: float = Field(default=1.0, ge=1.0, le=8.0)
    """Factor by which the prunable widths are multiplied first; 1 prunes the published network, as the papers do."""
    epochs: int = Field(default=160, ge=1)
    """Epochs of the training that precedes or accompanies the search."""
    batch_size: int = Field(default=64, ge=2)
    """Images per step of the training."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate of the training before the first milestone."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of the training's SGD."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of the training's SGD."""
    milestones: Milestones = (0.5, 0.75)
    """Fractions of the training at which the learning rate drops to a tenth."""

    def work(self, train: int, validation: int) -> tuple[str, float]:
        """As :meth:`MethodConfig.work`: the training."""
        return f"{self.epochs} epochs", float(self.epochs * train)

    def as_training(self) -> RetrainConfig:
        """Convert to the configuration of the training loop.

        The network trains on the training rows only, since the search judges it on the validation rows.
        """
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
