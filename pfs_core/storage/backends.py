"""Local folders and S3 prefixes as one thing: listing, reading ranges, writing files that are whole or absent.

An address is a path, ``file://PATH`` or ``s3://BUCKET/PREFIX``.
"""

import io
import re
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from pfs_core.errors import InvalidError
from pfs_core.storage.listing import Entry, Listing
from pfs_core.storage.local import LocalStorage
from pfs_core.storage.s3 import S3Storage

_BLOCK = 4 * 2**20
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""Names of buckets; capitals, underscores and more than 63 characters are of old buckets and of other stores."""


class Storage(Protocol):
    """A root with files below it. Paths are relative to it, with ``/`` between folders."""

    uri: str

    def files(self) -> Listing:
        """Every file below the root, in path order; NotFoundError if there is no such root."""

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; NotFoundError if it is gone, ChangedError if it is not the file that ``entry`` was."""

    def write(self, path: str, source: bytes | Path) -> None:
        """Make a file of bytes or of a local file's content; nobody sees a part of it."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""


def open_storage(uri: str | Path) -> Storage:
    """The storage at an address; InvalidError if it is empty or of no known kind."""
    text = str(uri)
    if not text:
        raise InvalidError("the address is empty; name a folder (. is the current one), file:// or s3://")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStorage(Path(text))
    if scheme == "file":
        if not rest.startswith("/"):
            raise InvalidError(f"{text!r} is no file address; write file:///FOLDER")
        return LocalStorage(Path(unquote(rest)))
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise InvalidError(f"{text!r} names no bucket; write s3://BUCKET/PREFIX")
        if "@" in bucket:  # what is before it may be a secret
            raise InvalidError(
                f"s3://...@{rest.rpartition('@')[2]} is no address in S3: write s3://BUCKET/PREFIX, and give key and "
                "secret as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if not _BUCKET.fullmatch(bucket):
            raise InvalidError(
                f"{text!r}: S3 has no bucket {bucket!r}; a name has at least 3 letters, digits, dots and hyphens, and "
                "begins and ends with a letter or digit"
            )
        return S3Storage(bucket, prefix.strip("/"))
    raise InvalidError(f"{text!r} cannot be read: {scheme}:// is not known; use a path, file:// or s3://")


def open_file(storage: Storage, entry: Entry) -> io.BufferedReader:
    """A file to seek and read in, fetched in ranges."""
    return io.BufferedReader(_Ranges(storage, entry), buffer_size=_BLOCK)


class _Ranges(io.RawIOBase):
    """A file as a raw stream of ranges."""

    def __init__(self, storage: Storage, entry: Entry) -> None:
        self._storage = storage
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._storage.read(self._entry, self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
