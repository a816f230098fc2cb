"""A request: a version of a registered model whose tags say what to make of it."""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from pfs_core.config.overrides import STAGES
from pfs_core.config.spec import Config
from pfs_core.errors import UserError

PREFIX = "pfs."
STATE = "pfs.compress"
REQUESTED, CLAIMED, DONE, FAILED = "requested", "claimed", "done", "failed"
RUN, LINK, ATTEMPTS, REASON = "pfs.compress_run", "pfs.compress_link", "pfs.compress_attempts", "pfs.compress_error"


class Request(Config):
    """What to compress, how far, and when the result is good enough."""

    model: str = Field(min_length=1)
    """A zoo name, ``torchvision:NAME`` or ``package.module:factory``."""
    model_settings: dict[str, Any] = Field(default={})
    """Its keyword arguments."""
    dataset: str = Field(min_length=1)
    budget: str = "macs=0.5"
    recipe: str = ""
    seed: int = Field(default=0, ge=0)
    max_accuracy_drop: float | None = Field(default=None, ge=-1, lt=1)
    """The result is accepted if it loses at most this much test accuracy to the dense network, as a fraction."""
    min_speedup: float | None = Field(default=None, gt=0)
    """The result is accepted if the dense network's CPU latency is at least so many times its own."""

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], what: str) -> Self:
        """Read ``pfs.model``, ``pfs.dataset`` and so on.

        Raises:
            UserError: one is missing or not understood; ``what`` says whose tags they are.
        """
        values: dict[str, Any] = {
            name: tags[PREFIX + name] for name in cls.model_fields if tags.get(PREFIX + name) not in (None, "")
        }
        if "model_settings" in values:
            try:
                values["model_settings"] = json.loads(values["model_settings"])
            except json.JSONDecodeError as e:
                raise UserError(f"{what}: tag {PREFIX}model_settings is not JSON: {e}") from None
        return cls.parse(values, f"{what}: {PREFIX}".removesuffix("."))

    def tags(self) -> dict[str, str]:
        """The tags that :meth:`of_tags` reads."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {PREFIX + name: json.dumps(v) if isinstance(v, dict) else str(v) for name, v in values.items()}

    def arguments(self) -> dict[str, Any]:
        """What a pipeline that carries it out is started with, as :func:`pfs_core.steps.preflight.check` takes it."""
        return {
            **self.model_dump(),
            "budgets": [self.budget],
            "networks": ["pruned"],
            **{f"{stage}_settings": {} for stage in STAGES},
        }

    def refusal(self, figures: Mapping[str, float]) -> str:
        """Why a result is not accepted; empty if it is.

        Args:
            figures: of the report, e.g. ``accuracy_drop`` and ``pruned_latency_ratio``.
        """
        if self.max_accuracy_drop is not None:
            drop = figures.get("accuracy_drop")
            if drop is None:
                return "the accuracy drop was not measured"
            if drop > self.max_accuracy_drop:
                return f"the accuracy drop of {drop:.4f} is above {self.max_accuracy_drop}"
        if self.min_speedup is not None:
            ratio = figures.get("pruned_latency_ratio")
            if not ratio:
                return "the latency was not measured"
            if 1 / ratio < self.min_speedup:
                return f"the speedup of {1 / ratio:.3f} is below {self.min_speedup}"
        return ""
