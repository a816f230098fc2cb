"""The code that a network is made of, so that what was found out about it can be told from what holds today."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from pfs_core.storage.digests import file_digest


def source_digests(model: nn.Module, *more: Callable[..., Any]) -> list[str] | None:
    """Return digests of the source files of a network's classes; None where one was typed in somewhere.

    Args:
        model: the network.
        more: functions and classes whose files count too.
    """
    try:
        files = {inspect.getfile(type(module)) for module in model.modules()}
        files |= {inspect.getfile(thing) for thing in more}
        return [file_digest(path) for path in sorted(files)]
    except (TypeError, OSError):
        return None
