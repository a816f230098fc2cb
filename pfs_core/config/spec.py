"""The network and the budget that a user asks for, and the base class of all settings."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from pfs_core.errors import UserError, did_you_mean
from pfs_core.expected import model_at, shown, takes_truth, wrong_value

LARGEST_IMAGE = 2**28
"""The most values of one image: more than any camera takes, and some of them still fit in memory."""


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys and reports errors to users in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Any, what: str) -> Self:
        """Validate ``values`` and return them as an object of this class.

        Args:
            values: the fields by name.
            what: what to call the values in an error message, e.g. the name of the file that they come from.

        Raises:
            UserError: a value is missing, wrong or not known; the message is about the first of these.

        >>> Budget.parse({"metric": "macs", "target": 20}, "budget")
        Traceback (most recent call last):
        pfs_core.errors.UserError: budget.target: must be a fraction in (0, 1] or a count such as 20M (got 20)
        """
        try:
            return cls.model_validate(values)
        except ValidationError as e:
            raise UserError(cls._refusal(e.errors()[0], what)) from None

    @classmethod
    def _refusal(cls, error: ErrorDetails, what: str) -> str:
        """Return what one of pydantic's errors says, in one line."""
        if error["type"] == "extra_forbidden":
            *_, name = path = [what, *map(str, error["loc"])]
            known = model_at(cls, error["loc"]).model_fields
            return f"{'.'.join(path)} is not a setting{did_you_mean(name, known)}; known: {', '.join(known)}"
        place, wrong = wrong_value(cls, error)
        got = "" if error["type"] == "missing" and wrong == "is missing" else f" (got {shown(error['input'])})"
        return f"{'.'.join([what, *place])}: {wrong}{got}"

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in given):
            annotation = cls.model_fields[info.field_name or ""].annotation
            if not takes_truth(annotation):
                raise PydanticCustomError("truth", "must be no truth value")
        return value

    def updated(self, changes: Mapping[str, Any], what: str) -> Self:
        """Return a copy with ``changes`` applied and validated.

        Args:
            changes: the fields to change.
            what: what to call the values in an error message.

        Raises:
            UserError: as :meth:`parse`.
        """
        return self.parse({**self.model_dump(), **changes}, what)


class ModelSpec(Config):
    """Everything that is needed to build a network: its name and arguments, classes, images and expansion."""

    name: str
    """Name of the network: one of the zoo, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``."""
    num_classes: int = Field(default=10, ge=2)
    """Number of classes that the network distinguishes."""
    input_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of one image."""
    expand: float = Field(default=1.0, ge=1.0, le=8.0)
    """Factor by which the width of every prunable channel group is multiplied before the search."""
    expand_stream: float | None = Field(default=None, ge=1.0, le=8.0)
    """Factor for the residual streams; None leaves that to the network (see ``widen_stream``)."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the function that builds the network."""

    @field_validator("input_shape")
    @classmethod
    def _positive(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 1:
            raise ValueError("must be three positive numbers: channels, height, width")
        if math.prod(shape) > LARGEST_IMAGE:
            raise ValueError(f"must be an image of at most {LARGEST_IMAGE:,} values")
        return shape


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Budget(Config):
    """The cost that the pruned network may have, relative to the unexpanded network or in absolute numbers.

    >>> budget = Budget.from_text("macs=20M")
    >>> budget.limit(40_813_184), round(budget.fraction(40_813_184), 2)
    (20000000.0, 0.49)
    >>> Budget.from_text("latency=0.6")
    Budget(metric='latency', target=0.6)
    """

    metric: Literal["macs", "params", "latency"] = "macs"
    """Unit of the cost: multiply-accumulates, parameters, or the measured time of one image."""
    target: float
    """Largest cost: a fraction in (0, 1], or a count of at least 1,000 (a latency is always a fraction)."""

    @field_validator("target")
    @classmethod
    def _fraction_or_count(cls, target: float, info: ValidationInfo) -> float:
        if target <= 0 or 1 < target < 1000 or (target > 1 and info.data.get("metric") == "latency"):
            if info.data.get("metric") == "latency":
                raise ValueError("must be a fraction of the dense network's latency, such as latency=0.6")
            raise ValueError("must be a fraction in (0, 1] or a count such as 20M")
        return target

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a budget such as ``macs=0.5``, ``latency=0.6`` or ``macs=20M``.

        Raises:
            UserError: the text is not a budget.
        """
        match = re.fullmatch(r"(\w+)=([0-9.]+(?:[eE][+-]?[0-9]+)?)([KMG]?)", text.strip())
        number = _number(match[2]) if match else None
        if match is None or number is None:
            raise UserError(
                f"budget {text!r} is not understood; write for example macs=0.5, params=0.4, latency=0.6 or macs=20M"
            )
        return cls.parse({"metric": match[1], "target": number * _UNITS[match[3]]}, f"budget {text!r}")

    def limit(self, reference: float) -> float:
        """Return the largest cost allowed, given the cost of the unexpanded network in the same metric."""
        # Costs are whole numbers, and floating point may round the product to just below the one that is meant.
        return self.target * reference + 1e-6 if self.target <= 1 else self.target

    def fraction(self, reference: float) -> float:
        """Return the budget as a fraction of ``reference``, the unexpanded network's cost in the same metric."""
        return self.target if self.target <= 1 else self.target / reference

    @property
    def in_macs(self) -> "Budget":
        """The budget itself or, for one of latency, the same fraction of the MACs, which need no measurement."""
        return Budget(target=self.target) if self.metric == "latency" else self

    def __str__(self) -> str:
        return f"{self.metric}={self.target}" if self.target <= 1 else f"{self.metric}={self.target:.0f}"


def _number(text: str) -> float | None:
    """Return a number, or None if the text is none or one that is too large for a float."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number < math.inf else None
