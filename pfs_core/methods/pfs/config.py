"""Settings of Pruning from Scratch, and how the report describes a search by it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.methods.config import MethodConfig

if TYPE_CHECKING:
    from pfs_core.methods.search_info import SearchInfo


class PfsConfig(MethodConfig):
    """Settings of Pruning from Scratch, which learns the gates on frozen random weights."""

    method: Literal["pfs"] = "pfs"
    """The name of the method."""
    epochs: int = Field(default=10, ge=1)
    """Epochs of the search; it ends earlier only where ``settled`` is set."""
    batch_size: int = Field(default=128, ge=2)
    """Images per step of the search."""
    lr: float = Field(default=0.01, gt=0)
    """Learning rate of Adam, which learns the gates."""
    gamma: float = Field(default=0.5, ge=0)
    """Weight of the regulariser, (mean gate - target ratio)^2, in the loss."""
    target_ratio: float | None = Field(default=None, gt=0, le=1)
    """Mean gate that the regulariser pulls towards; None takes the budget as a fraction of the dense network."""
    pretrain_epochs: int = Field(default=0, ge=0)
    """Epochs of training before the search, as in Network Slimming but without its penalty; 0 searches on random
    weights, as the paper does."""
    draws: int = Field(default=1, ge=1, le=100)
    """Draws of the random weights on which gates are learned in turn; the sorted gates of each group are averaged."""
    compile: bool = False
    """Use torch.compile (with CUDA graphs on a GPU): faster steps after some minutes of compiling."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between two evaluations within an epoch; None evaluates only at the end of each epoch."""
    settled: float | None = Field(default=None, ge=0, lt=1)
    """End the search once at most this share of the channels within the budget changes between evaluations; None runs
    all epochs."""
    settled_evaluations: int = Field(default=3, ge=1)
    """Number of consecutive evaluations at which the structure must have settled for the search to end."""

    @field_validator("draws")
    @classmethod
    def _of_random_weights(cls, draws: int, info: ValidationInfo) -> int:
        if draws > 1 and info.data.get("pretrain_epochs"):
            raise ValueError("must be 1 where pretrain_epochs trains the weights")
        return draws

    @property
    def history_axis(self) -> str:
        """``step`` if the search is evaluated within its epochs, else ``epoch``."""
        return "step" if self.evaluate_every else "epoch"

    def work(self, train: int, validation: int) -> tuple[str, float]:
        """As :meth:`MethodConfig.work`; a step of a search is taken for one of a training, which is slower."""
        epochs = self.pretrain_epochs + self.draws * self.epochs
        words = f"{self.draws} x {self.epochs} epochs" if self.draws > 1 else f"{self.epochs} epochs"
        return f"{self.pretrain_epochs} + {words}" if self.pretrain_epochs else words, float(epochs * train)

    def checkpoint_key(self) -> dict[str, Any]:
        """The settings, without ``draws`` where there is one: a search from before there were several goes on."""
        return self.model_dump(mode="json", exclude={"draws"} if self.draws == 1 else set())


def describe(info: "SearchInfo", last: Mapping[str, Any]) -> str:
    """Describe the search for the report, from ``search.json`` and the last row of the history."""
    config = info.config_as(PfsConfig)
    if config.draws > 1:
        up_to = "up to " if config.settled is not None else ""  # a draw ends where its structure has settled
        return (
            f"{up_to}{config.epochs} epochs on each of {config.draws} draws of random weights, target ratio "
            f"{info.target_ratio}; gates of epochs {', '.join(map(str, info.kept_epochs))} sorted and averaged"
        )
    weights = "frozen random weights"
    if config.pretrain_epochs:
        weights = f"weights trained for {config.pretrain_epochs} epochs, then frozen"
    early = f" (ended in epoch {last['epoch']}: the structure had settled)" if last["epoch"] < config.epochs else ""
    return (
        f"{config.epochs} epochs{early} on {weights}, target ratio {info.target_ratio}; "
        f"gates of epoch {info.kept_epoch} (step {info.kept_step}) kept"
    )
