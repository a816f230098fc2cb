"""The content of ``search.json``: what was searched, with which settings, and at what cost."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from pfs_core.channels import Refuted
from pfs_core.config.spec import ModelSpec
from pfs_core.methods.config import MethodConfig
from pfs_core.methods.registry import METHODS
from pfs_core.runtime.cost import StageCost
from pfs_core.storage.result_file import ResultFile

C = TypeVar("C", bound=MethodConfig)


class SearchInfo(ResultFile):
    """The content of ``search.json``; the gates and the history are in files beside it."""

    made_again_by: ClassVar[str] = "search again"

    schema_: Literal["pfs.gates/1"] = Field(default="pfs.gates/1", alias="schema")
    method: str = "pfs"
    """Name of the method; files of older versions, which had only ``pfs``, do not have it."""
    model: ModelSpec
    """The network, with the expansion that it was searched at."""
    frozen: dict[str, str] = Field(default_factory=dict)
    """Channel groups that the proof of the graph has left as they are, each with the reason; older files have none."""
    no_wider: dict[str, str] = Field(default_factory=dict)
    """Channel groups that it lets lose channels and not get more, each with the reason."""
    needed: dict[str, str] | None = None
    """Residual branches that it found cannot be left out, each with the reason; None in older files."""
    config: SerializeAsAny[MethodConfig] = Field(validation_alias="recipe", serialization_alias="recipe")
    """Settings of the method."""
    budget: str
    """Budget that the user asked for."""
    device: str
    """Device that the search ran on."""
    seed: int
    """Seed of the search."""
    precision: str
    """Number format of the search: ``bf16`` or ``fp32``."""
    target_ratio: float | None = None
    """Target ratio of the regulariser (``pfs`` only)."""
    kept_epoch: int | None = None
    """Epoch whose gates were chosen (``pfs`` only)."""
    kept_step: int | None = None
    """Step whose gates were chosen (``pfs`` only)."""
    kept_epochs: tuple[int, ...] = ()
    """In place of ``kept_epoch`` where a search has several draws: one epoch per draw, as the history counts them."""
    kept_steps: tuple[int, ...] = ()
    """In place of ``kept_step`` where a search has several draws: one step per draw, as the history counts them."""
    steps: int | None = None
    """Number of steps of the search, of all draws together (``pfs`` only)."""
    validation_accuracy: float | None = None
    """Validation accuracy of the gated (``pfs``; mean of the draws), trained (``network_slimming``) or cut network
    (``amc``)."""
    nonzero: float | None = None
    """Share of the chosen gates that are above 0 (``pfs`` only)."""
    pretrained_accuracy: float | None = None
    """Validation accuracy of the network before it is cut (``amc`` only)."""
    epochs: int | None = None
    """Number of epochs of all rounds together (``network_slimming`` only)."""
    dataset: str = ""
    """Address of the dataset that was searched on; older files do not have it."""
    split_fingerprint: str
    """Fingerprint of the split that was searched on."""
    pfs_version: str
    """Version of pfs that searched."""
    git_commit: str | None = None
    """Commit of the code, if it is known."""
    image: str | None = None
    """Container image that the step ran in, if it is known."""
    seconds: float
    """Wall-clock seconds of all stages together."""
    cost: dict[str, StageCost] = Field(default_factory=dict)
    """Cost of the stages ``pretrain`` and ``search``; older files do not have it."""
    peak_memory_mib: dict[str, int] = Field(default_factory=dict)
    """Peak memory in MiB of the ``host`` and, with a GPU, of the ``device``."""

    @property
    def refuted(self) -> Refuted:
        """What the channel graph said of the network and does not hold."""
        return Refuted(self.frozen, self.no_wider, self.needed)

    @field_validator("config", mode="before")
    @classmethod
    def _of_the_method(cls, config: Any, info: ValidationInfo) -> Any:
        """Parse settings from a file as the configuration of their method."""
        if not isinstance(config, Mapping):
            return config
        if info.data.get("method") not in METHODS:
            raise ValueError(f"of an unknown method; known: {', '.join(METHODS)}")
        kind = METHODS[info.data["method"]].config
        return kind.model_validate({key: value for key, value in config.items() if key in kind.model_fields})

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of the stage ``search``, and of ``pretrain`` if the method trained before it."""
        return {"search": self.seconds} | {stage: cost.seconds for stage, cost in self.cost.items()}

    def config_as(self, kind: type[C]) -> C:
        """Return the settings, typed as the configuration of one method."""
        assert isinstance(self.config, kind)
        return self.config
