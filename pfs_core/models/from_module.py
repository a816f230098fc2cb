"""The user's own networks, by ``package.module:factory``."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError, did_you_mean, one_line


def from_module(name: str) -> Callable[..., Any]:
    """Return the factory that ``package.module:factory`` names.

    Modules are looked for in the current directory first, and stay importable from there.

    Raises:
        UserError: the module cannot be imported, or it has no such attribute, or the attribute cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise UserError(f"model {name!r} is not understood; write for example package.module:factory")
    if module_name.endswith(".py"):
        meant = ".".join(Path(module_name).with_suffix("").parts)
        raise UserError(
            f"model {name!r} names a file; write {meant}:{attribute}, where {meant} can be imported from here"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # the usage of a script is not about our command
            module = importlib.import_module(module_name)
    except SystemExit:
        raise UserError(
            f"model {name}: module {module_name!r} cannot be imported: it ends with SystemExit; "
            'put what it does as a script below if __name__ == "__main__"'
        ) from None
    except Exception as e:
        raise UserError(f"model {name}: module {module_name!r} cannot be imported: {one_line(e)}") from e
    sys.stderr.write(said.getvalue())
    factory = getattr(module, attribute, None)
    if factory is None:
        raise UserError(f"model {name}: {module_name} has no {attribute!r}{did_you_mean(attribute, vars(module))}")
    if not callable(factory):
        raise UserError(f"model {name}: {attribute} is of type {type(factory).__name__}; name a function or class")
    result: Callable[..., Any] = factory
    return result
