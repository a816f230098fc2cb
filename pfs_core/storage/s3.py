"""A prefix of an S3 bucket as a storage.

Endpoint, region and credentials come from the environment alone, by boto3's own chain (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, profiles, instance roles).
"""

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from pfs_core.errors import NotFoundError
from pfs_core.storage.listing import Entry, Listing
from pfs_core.storage.retry import retried
from pfs_core.storage.s3_errors import transient, user_error

T = TypeVar("T")
ATTEMPTS = 8
"""How often a request is made whose fault may pass: over 25 seconds where each answer comes at once."""
_FIRST_WAIT = 0.2


class S3Storage:
    """Objects below a prefix of a bucket.

    What fails in passing is tried again. Every method raises UserError of the kinds that
    :func:`pfs_core.storage.s3_errors.user_error` tells apart.
    """

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
        """Every object below the prefix, in key order; NotFoundError if there is none."""

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
            raise NotFoundError(f"{self.uri} holds no objects; is the prefix right?")
        return found.in_path_order()

    def read(self, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, by one ranged request; a body that is cut short is asked for again.

        Raises:
            NotFoundError: the object is gone.
            ChangedError: it has another ETag than ``entry``.
        """
        size = entry.size - start if length is None else min(length, entry.size - start)
        if size <= 0:
            return b""
        key, span = self.prefix + entry.path, f"bytes={start}-{start + size - 1}"

        def got() -> bytes:
            answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=span, IfMatch=f'"{entry.tag}"')
            body = answer["Body"].read()
            if len(body) != size:
                raise ConnectionError(f"{len(body)} bytes of {size} came")
            data: bytes = body
            return data

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
        """The answer to a request about the address ``name``, or the UserError that its failure means."""
        try:
            return retried(request, transient, ATTEMPTS, _FIRST_WAIT)
        except Exception as e:
            if (refused := user_error(e, name, ATTEMPTS)) is None:
                raise
            raise refused from None


@cache
def _service_models() -> Any:
    """What botocore knows of S3: some MB of JSON, read once and not for every client."""
    from botocore.loaders import create_loader

    return create_loader()
