"""The settings of the method, and what the report says of a search by it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pfs_core.methods.config import TrainedConfig


class AmcConfig(TrainedConfig):
    """AMC (He et al. 2018): an agent that learns, episode by episode, how much each group of a trained net keeps."""

    method: Literal["amc"] = "amc"
    episodes: int = Field(default=800, ge=1)
    warmup_episodes: int = Field(default=100, ge=1)
    """Of them, that act at random."""
    lowest: float = Field(default=0.2, gt=0, lt=1)
    """The smallest share of its channels that a group may keep."""
    actor_lr: float = Field(default=1e-4, gt=0)
    critic_lr: float = Field(default=1e-3, gt=0)
    noise: float = Field(default=0.5, gt=0)
    """Standard deviation of the noise on actions after the warm-up."""
    noise_decay: float = Field(default=0.95, gt=0, le=1)
    """Factor on it an episode."""
    reward_rows: int | None = Field(default=None, ge=1)
    """Validation rows that a candidate is judged on; None takes all."""
    recalibrate: int = Field(default=512, ge=0)
    """Training images that BatchNorm's statistics of a candidate are taken from; 0 leaves those of the trained net."""

    @field_validator("warmup_episodes")
    @classmethod
    def _fewer(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup > info.data.get("episodes", warmup):
            raise ValueError("must be at most search.episodes")
        return warmup

    @property
    def history_axis(self) -> str:
        """The agent learns by the episode."""
        return "episode"


def describe(info: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """What was done, from ``search.json``."""
    config = info["recipe"]
    return (
        f"{config['epochs']} epochs of training to a validation accuracy of {info['pretrained_accuracy']:.1%}, then "
        f"{config['episodes']} episodes; the best cut keeps {info['validation_accuracy']:.1%} without training"
    )
