"""Local folders and S3 prefixes as one thing: listing, reading ranges, writing files that are whole or absent.

An address is a path, ``file://PATH`` or ``s3://BUCKET/PREFIX``. S3's endpoint, region and credentials come from the
environment alone, by boto3's own chain (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, profiles, instance roles).
"""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from pfs_core.errors import UserError
from pfs_core.storage.listing import Entry, Listing

T = TypeVar("T")
ATTEMPTS = 8
_FIRST_WAIT = 0.2
_BLOCK = 4 * 2**20


class Storage(Protocol):
    """A root with files below it. Paths are relative to it, with ``/`` between folders."""

    uri: str

    def files(self) -> Listing:
        """Every file below the root, in path order; UserError if there is no such root."""

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; UserError if it is not the file that ``entry`` was."""

    def write(self, path: str, source: bytes | Path) -> None:
        """Make a file of bytes or of a local file's content; nobody sees a part of it."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""


def open_storage(uri: str | Path) -> Storage:
    """The storage at an address; UserError if it is of no known kind."""
    text = str(uri)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStorage(Path(text))
    if scheme == "file":
        if not rest.startswith("/"):
            raise UserError(f"{text!r} is no file address; write file:///FOLDER")
        return LocalStorage(Path(unquote(rest)))
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise UserError(f"{text!r} names no bucket; write s3://BUCKET/PREFIX")
        return S3Storage(bucket, prefix.strip("/"))
    raise UserError(f"{text!r} cannot be read: {scheme}:// is not known; use a path, file:// or s3://")


def open_file(storage: Storage, entry: Entry) -> io.BufferedReader:
    """A file to seek and read in, fetched in ranges."""
    return io.BufferedReader(_Ranges(storage, entry), buffer_size=_BLOCK)


class LocalStorage:
    """Files below a folder. Links are followed, but not in circles."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def files(self) -> Listing:
        """Every file below the folder, in path order."""
        if not self.root.exists():
            raise UserError(f"{self.root} does not exist")
        if not self.root.is_dir():
            raise UserError(f"{self.root} is a file; name the folder that holds it")
        try:
            found = Listing.of(self._walk(self.root, "", frozenset([os.path.realpath(self.root)])))
        except OSError as e:
            raise UserError(f"{e.filename} cannot be read: {e.strerror}") from None
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
                    raise UserError(f"{os.fsencode(item.path)!r}: the name is not UTF-8; rename it") from None
                if item.is_dir():
                    real = os.path.realpath(item.path)
                    if real in above:
                        raise UserError(f"{item.path} is a link to a folder above itself; remove it")
                    yield from self._walk(Path(item.path), f"{path}/", above | {real})
                elif item.is_file() or item.is_symlink():
                    status = item.stat()
                    yield Entry(path, status.st_size, str(status.st_mtime_ns))

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file."""
        path = self.root / entry.path
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, str(status.st_mtime_ns)) != (entry.size, entry.tag):
                    raise _changed(path)
                file.seek(start)
                return file.read(entry.size - start if length is None else length)
        except FileNotFoundError:
            raise _changed(path) from None
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None

    def write(self, path: str, source: bytes | Path) -> None:
        """Make a file: beside its place, then renamed."""
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    if isinstance(source, bytes):
                        file.write(source)
                    else:
                        with source.open("rb") as content:
                            shutil.copyfileobj(content, file, _BLOCK)
                Path(aside).chmod(0o644)
                Path(aside).replace(target)
            finally:
                Path(aside).unlink(missing_ok=True)
        except OSError as e:
            raise UserError(f"{target} cannot be written: {e.strerror}") from None

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as e:
            raise UserError(f"{self.root / path} cannot be removed: {e.strerror}") from None


class S3Storage:
    """Objects below a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    @cached_property
    def client(self) -> Any:
        """The client, made at first use; it is not carried into another process."""
        import botocore.session
        from boto3.session import Session
        from botocore.config import Config

        once = {"total_max_attempts": 1}  # what fails is tried again by _tried, bodies included
        config = Config(retries=once, connect_timeout=10, read_timeout=30, max_pool_connections=32)
        session = botocore.session.Session()
        session.register_component("data_loader", _service_models())
        return Session(botocore_session=session).client("s3", config=config)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    def files(self) -> Listing:
        """Every object below the prefix, in key order; UserError if there is none."""

        def listed() -> Listing:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            entries = (
                Entry(item["Key"].removeprefix(self.prefix), item["Size"], item["ETag"].strip('"'))
                for page in pages
                for item in page.get("Contents", [])
            )
            return Listing.of(e for e in entries if not (e.path.endswith("/") or "/." in f"/{e.path}"))

        found = self._tried(listed, self.uri)
        if not found:
            raise UserError(f"{self.uri} holds no objects; is the prefix right?")
        return found.in_path_order()

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, by one ranged request; a body that is cut short is asked for again."""
        size = entry.size - start if length is None else min(length, entry.size - start)
        if size <= 0:
            return b""
        key, span = self.prefix + entry.path, f"bytes={start}-{start + size - 1}"

        def got() -> bytes:
            answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=span, IfMatch=f'"{entry.tag}"')
            body = answer["Body"].read()
            if len(body) != size:
                raise ConnectionError(f"{len(body)} bytes of {size} came")
            return body

        return self._tried(got, f"{self.uri}/{entry.path}")

    def write(self, path: str, source: bytes | Path) -> None:
        """Make an object; a large file goes in parts and appears when the last one has arrived."""
        key, name = self.prefix + path, f"{self.uri}/{path}"

        def put() -> None:
            if isinstance(source, bytes):
                self.client.put_object(Bucket=self.bucket, Key=key, Body=source)
            else:
                with source.open("rb") as file:
                    self.client.upload_fileobj(file, self.bucket, key)

        self._tried(put, name)

    def remove(self, path: str) -> None:
        """Delete an object, if it is there."""
        key = self.prefix + path
        self._tried(lambda: self.client.delete_object(Bucket=self.bucket, Key=key), f"{self.uri}/{path}")

    def _tried(self, request: Callable[[], T], name: str) -> T:
        """The answer to a request, tried again with growing waits where the fault may pass."""
        from botocore import exceptions as of
        from urllib3.exceptions import HTTPError

        wait = _FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request()
            except (of.NoCredentialsError, of.PartialCredentialsError):
                raise UserError(
                    f"{name}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
                ) from None
            except of.ClientError as e:
                status = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == 412:
                    raise _changed(name) from None
                if status < 500 and status not in (408, 429) and _code(e) != "RequestTimeout":
                    raise UserError(f"{name}: {_refusal(status, e)}") from None
                error: Exception = e
            except (of.ConnectionError, of.HTTPClientError, of.IncompleteReadError, HTTPError, OSError) as e:
                error = e
            except (of.BotoCoreError, ValueError) as e:
                raise UserError(f"{name}: {_line(e)}") from None
            if attempt < ATTEMPTS:
                time.sleep(wait)
                wait *= 2
        raise UserError(f"{name}: S3 failed {ATTEMPTS} times: {_line(error)}")


@cache
def _service_models() -> Any:
    """What botocore knows of S3: some MB of JSON, read once and not for every client."""
    from botocore.loaders import create_loader

    return create_loader()


def _refusal(status: int, error: Any) -> str:
    if status == 404:
        return "there is no such bucket or object"
    if status in (401, 403):
        return f"S3 refused access ({_code(error)}); check the credentials and the bucket's policy"
    return _line(error)


def _code(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _changed(name: object) -> UserError:
    return UserError(f"{name} has changed since it was listed; split the dataset again")


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
