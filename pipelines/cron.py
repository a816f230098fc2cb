"""Cron expressions as Kubeflow Pipelines takes them: six fields, seconds first."""

import re

from pfs_core.errors import UserError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""The days of each month, in the year that has the most."""
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("seconds", 0, 59, ()),
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)


def six_fields(text: str) -> str:
    """Check a cron expression, and put a field for the seconds before one of five fields.

    Raises:
        UserError: there are not five or six fields, or one is not understood or out of its range.

    >>> six_fields("0 2 * * *")
    '0 0 2 * * *'
    >>> six_fields("*/30 0 2-4,8 ? jan-MAR Mon")
    '*/30 0 2-4,8 ? jan-MAR Mon'
    """
    fields = text.split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise UserError(f'--cron {text!r} has {len(fields)} fields; expected 5, e.g. "0 2 * * *", or 6, seconds first')
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_understood(part, low, high, names) for part in field.split(",")):
            raise UserError(
                f"--cron {text!r}: {name} {field!r} is not understood; from {low} to {high}, as 1, 1-5 or */2"
            )
    _check_days(text, fields[3], fields[4], fields[5])
    return " ".join(fields)


def _check_days(text: str, day: str, month: str, weekday: str) -> None:
    """Check that a month has the days that are named, which decide alone where any day of the week will do."""
    days, months = (part.lower().split(",") for part in (day, month))
    known = {str(number): number for number in range(1, 13)} | {name: i for i, name in enumerate(_MONTHS, 1)}
    if weekday in ("*", "?") and all(part.isdigit() for part in days) and all(part in known for part in months):
        longest = max(_LONGEST[known[part] - 1] for part in months)
        if min(map(int, days)) > longest:
            raise UserError(f"--cron {text!r}: no such month has day {day}; it would never start")


def _understood(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Return whether one of the alternatives of a field is ``*``, ``?``, a value or a range, with or without a step."""
    span, slash, step = part.partition("/")
    if slash and not (re.fullmatch(r"[1-9]\d*", step, re.ASCII) and int(step) <= high - low + 1):
        return False
    if span in ("*", "?"):
        return True
    ends = [names.index(end) + low if end in names else end for end in span.lower().split("-")]
    if len(ends) > 2 or not all(re.fullmatch(r"\d+", str(end), re.ASCII) for end in ends):
        return False
    values = [int(end) for end in ends]
    return values == sorted(values) and low <= values[0] and values[-1] <= high
