"""A warm-up that nobody asked for gives way to a length that somebody asked for."""

from collections.abc import Mapping
from typing import Any


def with_fitting_warmup(
    settings: Mapping[str, Any], usual: Mapping[str, Any], warmup: str, length: str
) -> Mapping[str, Any]:
    """Return settings with the usual warm-up shortened by as much as the whole, where it would not fit any more.

    Args:
        settings: what is asked for.
        usual: the settings that these change.
        warmup: the name of the setting of the warm-up.
        length: the name of that of the whole, in the same unit.

    >>> usual = {"epochs": 20, "warmup_epochs": 5.0}
    >>> with_fitting_warmup({"epochs": 2}, usual, "warmup_epochs", "epochs")
    {'epochs': 2, 'warmup_epochs': 0.5}
    >>> with_fitting_warmup({"epochs": 2, "warmup_epochs": 5}, usual, "warmup_epochs", "epochs")
    {'epochs': 2, 'warmup_epochs': 5}
    """
    asked, before = settings.get(length), usual[warmup]
    if warmup in settings or not isinstance(asked, int | float) or not 0 < asked <= before:
        return settings
    shorter = before * asked / usual[length]
    return {**settings, warmup: max(1, int(shorter)) if isinstance(before, int) else shorter}
