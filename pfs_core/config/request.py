"""What a run is asked for: by the command line, a pipeline's first step, the model registry and ``run.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from pfs_core.config.overrides import Settings, whole_numbers
from pfs_core.config.seed import LARGEST_SEED
from pfs_core.config.spec import Config
from pfs_core.errors import InvalidError

DEFAULT_METHOD = "pfs"
"""The method that searches where the settings of the search name none."""

_NO_ARGUMENTS = ("budgets", "search_budget", "one_search")
"""The fields of a request that the pipeline ``compress`` has no argument for."""


class CompressRequest(Config):
    """Which network to compress on which dataset, how far, and with which settings.

    The types are checked here; :func:`pfs_core.steps.preflight.check` finds out whether the request can be carried out.
    """

    model: str = Field(min_length=1)
    """A name from the zoo, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``."""
    dataset: str = Field(min_length=1)
    """The address of the dataset, as :func:`pfs_core.data.open.open_source` takes it."""
    budgets: list[str]
    """What the network is cut to, e.g. ``["macs=0.5"]``; a network is trained for each."""
    search_budget: str = ""
    """What the one search aims at, if there is one for all budgets."""
    one_search: bool = False
    """Whether one search serves all budgets; otherwise there is one per budget."""
    recipe: str = ""
    """The name of a recipe; empty for the one that suits the dataset."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    networks: list[str] = Field(default=["pruned", "dense"])
    """The networks to train."""
    registered_model: str = ""
    """The name of the result in the model registry; empty for ``pfs-`` and the model's name."""
    model_settings: dict[str, Any] = Field(default={})
    """Keyword arguments of the network."""
    split_settings: dict[str, Any] = Field(default={})
    """Changes to the recipe's settings of a stage, here and in the fields below."""
    search_settings: dict[str, Any] = Field(default={})
    extract_settings: dict[str, Any] = Field(default={})
    retrain_settings: dict[str, Any] = Field(default={})
    latency_settings: dict[str, Any] = Field(default={})

    @field_validator("*", mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> Any:
        return whole_numbers(value)  # Kubeflow passes 32 as 32.0

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], what: str = "request") -> Self:
        """Make the request of which ``arguments`` are the :meth:`arguments`.

        Args:
            arguments: arguments of the pipeline ``compress``.
            what: says whose they are in an error message.

        Raises:
            UserError: an argument is missing, unknown or of the wrong type.
        """
        for name in _NO_ARGUMENTS:
            if name in arguments:
                raise InvalidError(f"{what}: {name} is no argument of a run, which has one budget; give budget alone")
        values = {name: value for name, value in arguments.items() if name != "budget"}
        budgets = [arguments["budget"]] if "budget" in arguments else []
        return cls.parse({**values, "budgets": budgets}, what)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the request of a finished or interrupted run from the ``run.json`` in its folder.

        Raises:
            UserError: there is no such file, or it is not the ``run.json`` of a run.
        """
        from pfs_core.storage.artifacts import read_json

        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("arguments"), dict):
            raise InvalidError(f"{path} is not the run.json of a run: it has no arguments")
        return cls.from_arguments(content["arguments"], str(path))

    @property
    def method(self) -> str:
        """The name of the search method."""
        return str(self.search_settings.get("method", DEFAULT_METHOD))

    def stage_settings(self, stage: str) -> Settings:
        """Return the changes to the recipe's settings of a stage in :data:`~pfs_core.config.overrides.STAGES`."""
        result: Settings = getattr(self, f"{stage}_settings")
        return result

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the pipeline ``compress``, as plain JSON values.

        Raises:
            ValueError: there are several budgets, which that pipeline does not take.
        """
        (budget,) = self.budgets
        others = self.model_dump(exclude=set(_NO_ARGUMENTS))
        return {"model": self.model, "dataset": self.dataset, "budget": budget, **others}
