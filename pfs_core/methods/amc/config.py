"""Settings of AMC, and how the report describes a search by it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.methods.config import TrainedConfig

if TYPE_CHECKING:
    from pfs_core.methods.search_info import SearchInfo


class AmcConfig(TrainedConfig):
    """Settings of AMC, whose agent learns by episodes how many channels each group of a trained network keeps."""

    method: Literal["amc"] = "amc"
    """The name of the method."""
    episodes: int = Field(default=800, ge=1)
    """Episodes of the agent; each proposes the widths of the whole network once."""
    warmup_episodes: int = Field(default=100, ge=1)
    """Number of episodes at the start in which the agent acts at random and only remembers."""
    lowest: float = Field(default=0.2, gt=0, lt=1)
    """Smallest share of its channels that the agent may leave to a group."""
    actor_lr: float = Field(default=1e-4, gt=0)
    """Adam's learning rate of the actor."""
    critic_lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate of the critic."""
    noise: float = Field(default=0.5, gt=0)
    """Standard deviation of the noise on actions when the warm-up ends."""
    noise_decay: float = Field(default=0.95, gt=0, le=1)
    """Factor by which the noise shrinks with every episode after the warm-up."""
    reward_rows: int | None = Field(default=None, ge=1)
    """Number of validation images on which a candidate is judged; None takes all."""
    recalibrate: int = Field(default=512, ge=0)
    """Number of training images from which a candidate's BatchNorm statistics are taken; 0 leaves those of the trained
    network."""

    @field_validator("warmup_episodes")
    @classmethod
    def _at_most_all(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup > info.data.get("episodes", warmup):
            raise ValueError("must be at most search.episodes")
        return warmup

    def work(self, train: int, validation: int) -> tuple[str, float]:
        """As :meth:`MethodConfig.work`; an image that goes through the network forward only is a third of one."""
        words, images = super().work(train, validation)
        judged = min(self.reward_rows or validation, validation) + min(self.recalibrate, train)
        return f"{words}, {self.episodes} episodes", images + self.episodes * judged / 3

    @property
    def history_axis(self) -> str:
        """``episode``, the unit in which the agent learns."""
        return "episode"


def describe(info: "SearchInfo", last: Mapping[str, Any]) -> str:
    """Describe the search for the report, from ``search.json``."""
    config = info.config_as(AmcConfig)
    return (
        f"{config.epochs} epochs of training to a validation accuracy of {info.pretrained_accuracy:.1%}, then "
        f"{config.episodes} episodes; the best cut keeps {info.validation_accuracy:.1%} without training"
    )
