"""``metrics.json``: a trained network, what it was trained with and how well it does on the test images."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from pfs_core.config.stages import RetrainConfig
from pfs_core.runtime.cost import StageCost
from pfs_core.storage.result_file import Result, ResultFile


class BestValidation(Result):
    """The epoch with the highest validation accuracy."""

    epoch: int
    """The epoch, counted from 1."""
    val_accuracy: float
    """Validation accuracy after the epoch."""


class Evaluation(Result):
    """The results of a network on the test images."""

    test_accuracy: float
    """Share of the test images that are classified right."""
    test_accuracy_interval: tuple[float, float]
    """Wilson's 95% interval of the test accuracy."""
    test_rows: int
    """Number of test images."""
    confusion_matrix: list[list[int]]
    """Number of test images by ``[true class][predicted class]``."""


class TrainingMetrics(ResultFile):
    """The content of ``metrics.json``; the weights and the history are in files beside it."""

    made_again_by: ClassVar[str] = "retrain it"

    schema_: Literal["pfs.model/1"] = Field(default="pfs.model/1", alias="schema")
    network: str
    """Which network it is: ``pruned``, ``uniform`` or ``dense``."""
    trained: bool
    """Whether the network was trained."""
    macs: int
    """MACs of the network per image."""
    params: int
    """Parameters of the network."""
    train_rows: int
    """Number of images that the network was trained on."""
    class_names: list[str]
    """Names of the classes, in the order of the labels."""
    config: RetrainConfig = Field(validation_alias="recipe", serialization_alias="recipe")
    """Settings of the training."""
    precision: str
    """Number format of the training: ``bf16`` or ``fp32``."""
    device: str
    """Device that the training ran on."""
    split_fingerprint: str
    """Fingerprint of the split that the network was trained on."""
    pfs_version: str
    """Version of pfs that trained the network."""
    git_commit: str | None = None
    """Commit of the code, if it is known."""
    image: str | None = None
    """Container image that the step ran in, if it is known."""
    test_accuracy: float
    """Share of the test images that are classified right."""
    test_accuracy_interval: tuple[float, float]
    """Wilson's 95% interval of the test accuracy."""
    test_rows: int
    """Number of test images."""
    confusion_matrix: list[list[int]]
    """Number of test images by ``[true class][predicted class]``."""
    best_validation: BestValidation | None = None
    """Epoch with the highest validation accuracy; None if the training was not validated."""
    epochs: int
    """Number of epochs of the training, which scratch-B makes longer than the settings say."""
    processes: int = 1
    """Number of processes that trained together."""
    seed: int
    """Seed of the initial weights and of the order of the images."""
    seconds: float
    """Wall-clock seconds of the training."""
    cost: dict[str, StageCost] = Field(default_factory=dict)
    """Cost of the stage ``retrain``; older files do not have it."""
    peak_memory_mib: dict[str, int] = Field(default_factory=dict)
    """Peak memory in MiB of the ``host`` and, with a GPU, of the ``device``."""

    @field_validator("config", mode="before")
    @classmethod
    def _as_it_is_called_now(cls, config: Any) -> Any:
        """Parse settings from a file; older versions called ``inherited`` ``kept``."""
        if not isinstance(config, Mapping):
            return config
        known = {key: value for key, value in config.items() if key in RetrainConfig.model_fields}
        return known | {"start": "inherited"} if known.get("start") == "kept" else known
