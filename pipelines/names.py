"""Names that Kubernetes and Kubeflow take, checked before they are sent."""

import re

from pfs_core.errors import UserError

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
OBJECT_NAME = re.compile(rf"(?=.{{1,253}}\Z){_PART}(\.{_PART})*")
"""The name of an object of Kubernetes."""
RESOURCE_NAME = re.compile(rf"{_PART}(\.{_PART})*/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", re.ASCII)
"""The name of a resource of a node, other than cores and memory."""
_NAMESPACE = re.compile(rf"(?=.{{1,63}}\Z){_PART}")
_RUN = re.compile(r"[-\w]+", re.ASCII)
LONGEST_TITLE = 255
"""The most characters of the name of a run or a schedule. Kubeflow starts a run before it finds that its database takes
no more, and then does not know it."""
LONGEST_EXPERIMENT = 128
"""The most characters of the name of an experiment."""


def check_object(flag: str, name: str) -> None:
    """Check the name of an object of Kubernetes, which may be empty; UserError names the flag."""
    if name and not OBJECT_NAME.fullmatch(name):
        raise UserError(f"{flag} must be a name of Kubernetes: small letters, digits, - and . (got {name[:200]!r})")


def check_namespace(flag: str, name: str) -> None:
    """Check the name of a namespace, which may be empty; UserError names the flag."""
    if name and not _NAMESPACE.fullmatch(name):
        raise UserError(
            f"{flag} must be a namespace, of at most 63 small letters, digits and -, e.g. team-a (got {name[:200]!r})"
        )


def check_title(flag: str, name: str, longest: int = LONGEST_TITLE) -> None:
    """Check a name that Kubeflow lists; UserError, which names the flag, if it cannot be seen or is too long."""
    if not name.strip() or not name.isprintable():
        raise UserError(f"{flag} must be a name that can be seen, in one line (got {name[:200]!r})")
    if len(name) > longest:
        raise UserError(f"{flag} must be a name of at most {longest} characters (got {len(name)}: {name[:200]!r}...)")


def check_run(name: str) -> None:
    """Check the form of a run's id; UserError if it is none."""
    if not _RUN.fullmatch(name):
        raise UserError(f"RUN must be the id of a run, which pfs submit prints and the UI shows (got {name[:200]!r})")
