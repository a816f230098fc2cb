"""Writing a file so that readers, and others who write it at the same time, never meet half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` that takes its place when the block ends without an exception.

    Its name is hidden, of no other writer, and has the suffix of ``path``.

    Raises:
        OSError: no file can be made there.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)  # temporary files are private to their user; results are not
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
