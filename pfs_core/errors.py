"""UserError and its kinds: what a user can put right, said in one line."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line; the command prints it without a traceback and exits with 2.

    A name in it, as of a file, may have any signs; those that cannot be seen are shown as Python writes them.

    The kinds below are raised where a caller may treat one of them differently from the others: by files and object
    stores, and by the servers that this project talks to.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"[\x00-\x1f\x7f]", lambda sign: repr(sign[0])[1:-1], message))


class NotFoundError(UserError):
    """There is no such file, object or resource; a caller may take that for "none yet"."""


class AccessDeniedError(UserError):
    """Credentials are missing, wrong or expired, or they do not allow what was asked."""


class ChangedError(UserError):
    """A file is no longer what it was when it was listed."""


class UnreachableError(UserError):
    """A server does not answer, or fails again and again; the same request may succeed later."""


class InvalidError(UserError):
    """A value that cannot be right, whatever exists and whoever asks."""


def file_error(error: OSError, message: str) -> UserError:
    """The UserError of the kind that an error of the file system is of, with a message of the caller's."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(message)
    return AccessDeniedError(message) if isinstance(error, PermissionError) else UserError(message)


def for_users(error: UserError | PermissionError) -> str:
    """What a user can put right, in one line.

    >>> for_users(PermissionError(13, "Permission denied", "/root/split"))
    '/root/split cannot be used: Permission denied'
    """
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be used: {error.strerror}" if error.filename else str(error)
    return str(error)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint at the nearest known name, shown with ``prefix``; empty where none is near.

    >>> did_you_mean("resnet21", ["resnet20", "resnet32", "vgg11"])
    ' (did you mean resnet20?)'
    >>> did_you_mean("PFS", ["pfs", "amc"])
    ' (did you mean pfs?)'
    """

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    nearest = max(known, key=likeness, default="")
    return f" (did you mean {prefix}{nearest}?)" if likeness(nearest) >= 0.6 else ""


def one_line(error: BaseException) -> str:
    """The type and the first line of what somebody else's code raised.

    >>> one_line(KeyError("width"))
    "KeyError: 'width'"
    """
    text = "it asks for input, and nobody answers" if isinstance(error, EOFError) else str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
