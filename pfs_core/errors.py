"""The one exception that means: the user's input is wrong, and this line says what would be right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line; the command prints it without a traceback and exits with 2."""


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint at the nearest known name, shown with ``prefix``; empty where none is near.

    >>> did_you_mean("resnet21", ["resnet20", "resnet32", "vgg11"])
    ' (did you mean resnet20?)'
    """

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, name, other).ratio()

    nearest = max(known, key=likeness, default="")
    return f" (did you mean {prefix}{nearest}?)" if likeness(nearest) >= 0.6 else ""


def one_line(error: Exception) -> str:
    """The type and the first line of what somebody else's code raised.

    >>> one_line(KeyError("width"))
    "KeyError: 'width'"
    """
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
