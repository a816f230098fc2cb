"""A request in the model registry: a model version whose tags say what to compress it to."""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from pfs_core.config.request import CompressRequest
from pfs_core.config.seed import LARGEST_SEED
from pfs_core.config.spec import Config
from pfs_core.errors import UserError, did_you_mean
from pfs_core.registry import claims
from pfs_core.storage.strict import json_value

PREFIX = "pfs."
STATE = "pfs.compress"
REQUESTED, CLAIMED, DONE, FAILED = "requested", "claimed", "done", "failed"
RUN, LINK, ATTEMPTS, REASON = "pfs.compress_run", "pfs.compress_link", "pfs.compress_attempts", "pfs.compress_error"
SOURCE, RESULT, GATE = "pfs.source", "pfs.pruned", "pfs.gate"
SHA256 = "pfs.spec_sha256"
METHOD, ACCURACY = "pfs.method", "pfs.test_accuracy"
_WRITTEN = (
    *(STATE, RUN, LINK, ATTEMPTS, REASON, SOURCE, RESULT, GATE, SHA256),
    *(METHOD, ACCURACY, "pfs.latency_ratio"),  # of a result, which may be a request as well
)
"""Tags of a version that are no part of a request: its state, and what is said of a result."""


class Request(Config):
    """Which network to compress, how far, and when the result is good enough."""

    model: str = Field(min_length=1)
    """A name from the zoo, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``."""
    model_settings: dict[str, Any] = Field(default={})
    """Keyword arguments of the network."""
    dataset: str = Field(min_length=1)
    budget: str = "macs=0.5"
    recipe: str = ""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    max_accuracy_drop: float | None = Field(default=None, ge=-1, lt=1)
    """The result is accepted if its test accuracy, as a fraction, is at most this far below the dense network's."""
    min_speedup: float | None = Field(default=None, gt=0)
    """The result is accepted if the dense network's CPU latency is at least this many times its own."""

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], what: str) -> Self:
        """Read a request from the tags ``pfs.model``, ``pfs.dataset`` and so on.

        Args:
            tags: all tags of a model version.
            what: says whose tags they are in an error message.

        Raises:
            UserError: a tag is missing or not known, or its value is not allowed.
        """
        known = [PREFIX + name for name in cls.model_fields]
        for tag in tags:
            if tag.startswith(PREFIX) and not tag.startswith(claims.PREFIX) and tag not in (*known, *_WRITTEN):
                hint = did_you_mean(tag.removeprefix(PREFIX), cls.model_fields, PREFIX)
                raise UserError(f"{what}: {tag} is not a tag of a request{hint}; known: {', '.join(known)}")
        if METHOD in tags and ACCURACY not in tags:
            raise UserError(
                f"{what}: {METHOD} is not a tag of a request (got {tags[METHOD]!r}); the method is that of the "
                "pipeline's settings_search, so take the tag out"
            )
        values: dict[str, Any] = {
            name: tags[PREFIX + name] for name in cls.model_fields if tags.get(PREFIX + name) not in (None, "")
        }
        if "model_settings" in values:
            try:
                values["model_settings"] = json_value(values["model_settings"])
            except ValueError as e:
                raise UserError(f"{what}: tag {PREFIX}model_settings is not JSON: {e}") from None
        return cls.parse(values, f"{what}: {PREFIX}".removesuffix("."))

    def tags(self) -> dict[str, str]:
        """Return the tags from which :meth:`of_tags` reads this request."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {PREFIX + name: json.dumps(v) if isinstance(v, dict) else str(v) for name, v in values.items()}

    def to_compress_request(self) -> CompressRequest:
        """Return what the pipeline that carries it out is asked for, without what depends on the result."""
        return CompressRequest(
            model=self.model,
            model_settings=self.model_settings,
            dataset=self.dataset,
            budgets=[self.budget],
            recipe=self.recipe,
            seed=self.seed,
        )

    def refusal(self, figures: Mapping[str, float]) -> str:
        """Return why a result is not accepted, or an empty text if it is.

        Args:
            figures: the figures of the report, such as ``accuracy_drop`` and ``pruned_latency_ratio``.
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
