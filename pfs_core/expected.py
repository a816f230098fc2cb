"""What a setting may be that takes values of several kinds, in words."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_KINDS = {int: "a whole number", float: "a number", str: "a text"}


def alternatives(field: FieldInfo) -> str:
    """Return what a field may be, names first; empty if it takes values of one kind only.

    >>> alternatives(FieldInfo.from_annotation(Annotated[int, FieldInfo(ge=1)] | Literal["auto"]))
    'auto or a whole number from 1'
    """
    if get_origin(field.annotation) not in (Union, UnionType):
        return ""
    names: list[str] = []
    kinds: list[str] = []
    for member in get_args(field.annotation):
        kind, about = get_args(member) if get_origin(member) is Annotated else (member, field)
        if get_origin(kind) is Literal:
            names += map(str, get_args(kind))
        elif kind is NoneType:
            names.append("None")
        else:
            kinds.append(_KINDS[kind] + _bounds(about.metadata))
    *first, last = names + kinds
    return f"{', '.join(first)} or {last}"


def _bounds(constraints: Sequence[Any]) -> str:
    """Return between which numbers a value must be; empty if there are no bounds.

    >>> from annotated_types import Ge, Gt, Le
    >>> [_bounds(bounds) for bounds in ([], [Ge(1)], [Gt(0)], [Gt(0), Le(1)])]
    ['', ' from 1', ' above 0', ' in (0, 1]']
    """
    limits = {name: getattr(c, name) for c in constraints for name in ("ge", "gt", "le", "lt") if hasattr(c, name)}
    low = f"[{limits['ge']}" if "ge" in limits else f"({limits['gt']}" if "gt" in limits else ""
    high = f"{limits['le']}]" if "le" in limits else f"{limits['lt']})" if "lt" in limits else ""
    if low and high:
        return f" in {low}, {high}"
    return low.replace("[", " from ").replace("(", " above ")
