"""Checks of the arguments that users can give to networks of the zoo."""

import math
from typing import Any

from pfs_core.errors import UserError


def check_width(width: Any) -> None:
    """Raise UserError unless ``width`` is a positive whole number."""
    if type(width) is not int or width < 1:
        raise UserError(f"model.width must be a whole number from 1 (got {width!r})")


def check_width_mult(width_mult: Any) -> None:
    """Raise UserError unless ``width_mult`` is a positive number."""
    if type(width_mult) not in (int, float) or not 0 < width_mult < math.inf:
        raise UserError(f"model.width_mult must be a positive number (got {width_mult!r})")
