"""The size of images as a user writes it."""

from typing import Any

SMALLEST, LARGEST = 8, 1024
"""Bounds of a side in pixels."""


def height_and_width(size: Any) -> int | tuple[int, int]:
    """Return a size as one side, if it is square, or as height and width.

    Args:
        size: a side, a text ``160x128`` of height and width, or a list of the two.

    Raises:
        ValueError: it is none of these, or a side is out of bounds.

    >>> [height_and_width(size) for size in (224, "160x128", [160, 128], "64x64")]
    [224, (160, 128), (160, 128), 64]
    """
    given = size.lower().split("x") if isinstance(size, str) else size
    numbers = [_whole(side) for side in (given if isinstance(given, list | tuple) else [given])]
    sides = [side for side in numbers if side is not None]
    if len(numbers) not in (1, 2) or len(sides) < len(numbers):
        raise ValueError("must be a side in pixels such as 224, or height and width such as 160x128")
    if min(sides) < SMALLEST or max(sides) > LARGEST:
        raise ValueError(f"must have sides of {SMALLEST} to {LARGEST} pixels")
    return sides[0] if sides[0] == sides[-1] else (sides[0], sides[1])


def _whole(value: Any) -> int | None:
    """Return a whole number; None if ``value`` is none."""
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
