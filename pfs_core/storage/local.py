"""A folder of this machine as a storage."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pfs_core.errors import ChangedError, InvalidError, NotFoundError, file_error
from pfs_core.storage.listing import Entry, Listing
from pfs_core.storage.whole_file import whole_file

_BLOCK = 4 * 2**20


def is_there(path: str | Path) -> bool:
    """Return whether there is something at a path, which may be a text that no file can be called."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, in a circle of links, or with a zero in it
        return False


class LocalStorage:
    """Files below a folder. Links are followed, but not in circles.

    Attributes:
        special: the paths of pipes, sockets and devices that the last listing met and passed over.
        dangling: the paths of links that led nowhere.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)
        self.special: list[str] = []
        self.dangling: list[str] = []

    def files(self) -> Listing:
        """Every file below the folder, in path order.

        Raises:
            NotFoundError: there is no such folder.
            AccessDeniedError: a folder may not be read.
            UserError: the folder is a file, a name is not UTF-8, or a link leads to a folder above it.
        """
        self.special, self.dangling = [], []
        try:
            if not self.root.exists():
                raise NotFoundError(f"{self.root} does not exist")
            if not self.root.is_dir():
                raise InvalidError(f"{self.root} is a file; name the folder that holds it")
            found = Listing.of(self._walk(self.root, "", frozenset([os.path.realpath(self.root)])))
        except OSError as e:
            raise file_error(e, f"{e.filename} cannot be read: {e.strerror}") from None
        return found.in_path_order()

    def _walk(self, folder: Path, prefix: str, above: frozenset[str]) -> Iterator[Entry]:
        with os.scandir(folder) as entries:
            for item in entries:
                if item.name.startswith("."):
                    continue
                path = prefix + item.name
                try:
                    path.encode()
                except UnicodeEncodeError:
                    raise InvalidError(f"{os.fsencode(item.path)!r}: the name is not UTF-8; rename it") from None
                if _leads_nowhere(item):
                    self.dangling.append(path)
                elif item.is_dir():
                    real = os.path.realpath(item.path)
                    if real in above:
                        raise InvalidError(f"{item.path} is a link to a folder above itself; remove it")
                    yield from self._walk(Path(item.path), f"{path}/", above | {real})
                else:
                    status = item.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield Entry(path, status.st_size, str(status.st_mtime_ns))
                    else:  # reading one could wait for ever
                        self.special.append(path)

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file.

        Raises:
            NotFoundError: the file is gone.
            ChangedError: its size or modification time is another.
            AccessDeniedError: it may not be read.
        """
        path = self.root / entry.path
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, str(status.st_mtime_ns)) != (entry.size, entry.tag):
                    raise ChangedError(f"{path} has changed since it was listed; split the dataset again")
                file.seek(start)
                return file.read(entry.size - start if length is None else length)
        except FileNotFoundError:
            raise NotFoundError(f"{path} has been removed since it was listed; split the dataset again") from None
        except OSError as e:
            raise file_error(e, f"{path} cannot be read: {e.strerror}") from None

    def write(self, path: str, source: bytes | Path) -> None:
        """Make a file: beside its place, then renamed."""
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as aside, aside.open("wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as content:
                        shutil.copyfileobj(content, file, _BLOCK)
        except OSError as e:
            raise file_error(e, f"{target} cannot be written: {e.strerror}") from None

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as e:
            raise file_error(e, f"{self.root / path} cannot be removed: {e.strerror}") from None


def _leads_nowhere(item: "os.DirEntry[str]") -> bool:
    """Whether a name in a folder is a link to what is not there, or to itself."""
    if not item.is_symlink():
        return False
    try:
        item.stat()
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return True
    return False
