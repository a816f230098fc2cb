"""What a user asks for: which model, how small, and by which recipe. JSON in, one-line errors out."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pfs_core.errors import UserError


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys and speaks to users in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Any, what: str) -> Self:
        """Validate ``values``; ``what`` names them in the UserError of the first thing that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join([what, *map(str, first["loc"])])
            if first["type"] == "extra_forbidden":
                owner: Any = cls
                for part in first["loc"][:-1]:
                    owner = owner.model_fields[part].annotation
                raise UserError(f"{where} is not a setting; known: {', '.join(owner.model_fields)}") from None
            given = f" (got {first['input']!r})" if first["type"] != "missing" else ""
            raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}{given}") from None

    def updated(self, changes: Mapping[str, Any], what: str) -> Self:
        """A copy with ``changes`` applied and validated."""
        return self.parse({**self.model_dump(), **changes}, what)


class ModelSpec(Config):
    """Enough to build a network again: a name, its keyword arguments, classes, input and expansion."""

    name: str
    """Of the zoo, ``torchvision:NAME`` or ``package.module:factory``."""
    num_classes: int = Field(default=10, ge=2)
    input_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height, width of one image."""
    expand: float = Field(default=1.0, ge=1.0, le=8.0)
    """Factor on the width of every prunable channel group, applied before the search."""
    expand_stream: float | None = Field(default=None, ge=1.0, le=8.0)
    """Factor on the residual streams; None leaves that to the network (see ``widen_stream``)."""
    kwargs: dict[str, Any] = {}

    @field_validator("input_shape")
    @classmethod
    def _positive(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 1:
            raise ValueError("must be three positive numbers: channels, height, width")
        return shape


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Budget(Config):
    """How much the pruned network may cost, relative to the unexpanded network or in absolute numbers."""

    metric: Literal["macs", "params", "latency"] = "macs"
    target: float = Field(gt=0)
    """A fraction in (0, 1], or a count from 1,000 up (not of latency)."""

    @field_validator("target")
    @classmethod
    def _fraction_or_count(cls, target: float) -> float:
        if 1 < target < 1000:
            raise ValueError("must be a fraction in (0, 1] or a count such as 20M")
        return target

    @model_validator(mode="after")
    def _latency_is_a_fraction(self) -> Self:
        if self.metric == "latency" and self.target > 1:
            raise ValueError("must be a fraction of the dense network's latency, such as latency=0.6")
        return self

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse ``macs=0.5``, ``latency=0.6`` or ``macs=20M``; UserError says what is wrong with anything else."""
        match = re.fullmatch(r"(\w+)=([0-9.]+(?:[eE][+-]?[0-9]+)?)([KMG]?)", text.strip())
        number = _number(match[2]) if match else None
        if match is None or number is None:
            raise UserError(
                f"budget {text!r} is not understood; write for example macs=0.5, params=0.4, latency=0.6 or macs=20M"
            )
        return cls.parse({"metric": match[1], "target": number * _UNITS[match[3]]}, f"budget {text!r}")

    def limit(self, reference: float) -> float:
        """The largest cost allowed, given the cost of the unexpanded network in the same metric.

        A fraction is of a whole cost, so what floating point loses of it (well under one MAC) is given back.
        """
        return self.target * reference + 1e-6 if self.target <= 1 else self.target

    def fraction(self, reference: float) -> float:
        """The budget as a fraction of the unexpanded network's cost."""
        return self.target if self.target <= 1 else self.target / reference

    @property
    def in_macs(self) -> "Budget":
        """What stands for the budget where latency is not known: the same share of the MACs."""
        return Budget(target=self.target) if self.metric == "latency" else self

    def __str__(self) -> str:
        return f"{self.metric}={self.target}" if self.target <= 1 else f"{self.metric}={self.target:.0f}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
