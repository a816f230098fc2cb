"""The JSON files of result folders as typed objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from pfs_core.errors import InvalidError
from pfs_core.expected import wrong_value
from pfs_core.storage.artifacts import read_json, write_json


class Result(BaseModel):
    """A part of a result file: frozen, and it ignores keys that only other versions write."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    @model_serializer(mode="wrap")
    def _only_given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was not given is not written: optional keys stay missing in the file."""
        missing = set(type(self).model_fields) - self.model_fields_set - {"schema_"}
        return {key: value for key, value in serialise(self).items() if key not in missing}


class ResultFile(Result):
    """A whole file, which says by its schema what it is. Subclasses narrow ``schema_`` to theirs."""

    made_again_by: ClassVar[str]
    """What to do about a file of another schema, for the error message."""

    schema_: str = Field(alias="schema")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a file.

        Raises:
            NotFoundError: there is no such file.
            InvalidError: it is not JSON, is of another schema, or a value is missing or wrong.
        """
        values = read_json(path)
        expected = cls.model_fields["schema_"].default
        found = values.get("schema") if isinstance(values, dict) else None
        if found != expected:
            raise InvalidError(f"{path} has schema {found!r}; expected {expected!r}; {cls.made_again_by}")
        try:
            return cls.model_validate(values)
        except ValidationError as e:
            place, wrong = wrong_value(cls, e.errors()[0])
            raise InvalidError(f"{path}: {'.'.join(place)}: {wrong}") from None

    def save(self, path: str | Path) -> None:
        """Write the file."""
        write_json(path, self.model_dump(mode="json", by_alias=True))


def known_settings(kind: type[BaseModel]) -> BeforeValidator:
    """Of recorded settings, take those that ``kind`` still has; the others get their defaults."""

    def known(values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if key in kind.model_fields}

    return BeforeValidator(known)
