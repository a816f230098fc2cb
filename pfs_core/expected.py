"""What a value may be, in words, and which value was wrong: pydantic's errors as a user reads them."""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_KINDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "true or false"),
}
_SHOWN = 200
"""The most characters of a value that are shown."""


def wrong_value(kind: type[BaseModel], error: ErrorDetails) -> tuple[list[str], str]:
    """Return which value is wrong, as the names on the way to it, and what it must be.

    Args:
        kind: the model that refuses its values.
        error: one of pydantic's errors about it.
    """
    loc = error["loc"]
    place = [str(part) for part in loc]
    if error["type"] == "value_error":  # raised by a validator of ours
        return place, error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        if _is_model(_at(kind, loc[:-1])[1]):
            return place, "is missing"
        loc = loc[:-1]  # of a list that is too short
    path, annotation, metadata = _at(kind, loc)
    if "[key]" in loc:
        return path, "must have texts for names"
    words = expected(annotation, metadata)
    return (path, f"must be {words}") if words else (place, error["msg"])


def shown(value: Any) -> str:
    """Return a value as it is quoted to a user, not all of it if it is long.

    >>> shown(0.5), len(shown("x" * 1000))
    ('0.5', 203)
    """
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def model_at(kind: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model, ``kind`` or one within it, that has the field at the end of ``path``."""
    _, owner, _ = _at(kind, path[:-1])
    return owner if isinstance(owner, type) and issubclass(owner, BaseModel) else kind


def takes_truth(annotation: Any) -> bool:
    """Return whether true and false are values of an annotation, and not only the numbers 1 and 0 that Python makes.

    >>> takes_truth(bool | None), takes_truth(dict[str, Any]), takes_truth(tuple[int, ...])
    (True, True, False)
    """
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    return annotation in (bool, Any, object) or any(takes_truth(part) for part in get_args(annotation))


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a value may be, names first; empty if there are no words for it.

    Args:
        annotation: the type.
        metadata: its bounds, as pydantic keeps them.

    >>> from pydantic import Field
    >>> expected(Annotated[int, Field(ge=1)] | Literal["auto"])
    'auto or a whole number from 1'
    >>> expected(tuple[float, float]), expected(list[Annotated[int, Field(ge=0)]])
    ('a list of 2 numbers', 'a list of whole numbers from 0')
    """
    return _words(annotation, metadata, many=False)


def _words(annotation: Any, metadata: Sequence[Any], many: bool) -> str:
    names: list[str] = []
    kinds: list[str] = []
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for member in members:
        kind, own = _bare(member)
        bounds = [*own, *metadata]
        if get_origin(kind) is Literal:
            names += map(str, get_args(kind))
        elif kind is NoneType:
            names.append("None")
        elif kind in _KINDS:
            kinds.append(_KINDS[kind][many] + _bounds(bounds))
        elif items := _items(kind, bounds):
            kinds.append(items)
        elif get_origin(kind) in (dict, Mapping) or kind is dict or _is_model(kind):
            kinds.append("objects" if many else "an object")
        else:
            return ""
    *first, last = names + kinds
    return f"{', '.join(first)} or {last}" if first else last


def _items(kind: Any, bounds: Sequence[Any]) -> str:
    """Return a list and what is in it, in words; empty if ``kind`` is no list or there are no words for its items."""
    parts = get_args(kind)
    if get_origin(kind) not in (list, tuple) or not parts:
        return ""
    number = f"{len(parts)} " if get_origin(kind) is tuple and parts[-1] is not Ellipsis else ""
    words = _words(*_bare(parts[0]), many=True)
    least = ", at least one" if any(getattr(bound, "min_length", 0) for bound in bounds) else ""
    return f"a list of {number}{words}{least}" if words else ""


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """Return an annotation without what ``Annotated`` adds, and the bounds that it adds."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *added = get_args(annotation)
    return kind, [bound for about in added for bound in getattr(about, "metadata", [about])]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _at(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], Any, Sequence[Any]]:
    """Return the annotation of what is at ``loc`` in a model, or of the last on the way there that is clear.

    Returns:
        The names on the way to it, its annotation, and its bounds.
    """
    annotation: Any = kind
    metadata: Sequence[Any] = ()
    path: list[str] = []
    for part in loc:
        parts = get_args(annotation)
        if _is_model(annotation):
            named = {field.alias or name: field for name, field in annotation.model_fields.items()}
            field = annotation.model_fields.get(part) or named.get(part)
            if field is None:
                break
            annotation, metadata = field.annotation, field.metadata
        elif get_origin(annotation) in (list, tuple) and isinstance(part, int):
            annotation, metadata = _bare(parts[part] if parts[-1] is not Ellipsis and part < len(parts) else parts[0])
        elif get_origin(annotation) is dict and "[key]" not in loc:
            annotation, metadata = _bare(parts[1])
        else:
            break
        path.append(str(part))
    return path, annotation, metadata


def _bounds(constraints: Sequence[Any]) -> str:
    """Return between which numbers a value must be; empty if there are no bounds.

    >>> from annotated_types import Ge, Gt, Le, MaxLen, MinLen
    >>> [_bounds(bounds) for bounds in ([], [Ge(1)], [Gt(0)], [Gt(0), Le(1)])]
    ['', ' from 1', ' above 0', ' in (0, 1]']
    >>> [_bounds(bounds) for bounds in ([MinLen(1)], [MaxLen(9)], [MinLen(1), MaxLen(9)])]
    [' that is not empty', ' of at most 9 characters', ' of 1 to 9 characters']
    """
    names = ("ge", "gt", "le", "lt", "min_length", "max_length")
    limits = {name: getattr(c, name) for c in constraints for name in names if getattr(c, name, None) is not None}
    if "max_length" in limits:
        least = f"{limits['min_length']} to" if "min_length" in limits else "at most"
        return f" of {least} {limits['max_length']} characters"
    if "min_length" in limits:
        return " that is not empty"
    low = f"[{limits['ge']}" if "ge" in limits else f"({limits['gt']}" if "gt" in limits else ""
    high = f"{limits['le']}]" if "le" in limits else f"{limits['lt']})" if "lt" in limits else ""
    if low and high:
        return f" in {low}, {high}"
    return low.replace("[", " from ").replace("(", " above ")
